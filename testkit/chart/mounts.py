"""Write the volumes of a rendered pod to a folder of this machine, as a kubelet does."""

import uuid
from base64 import b64decode
from pathlib import Path

from testkit.chart.rendering import Json, find_object, pod_spec


class Mounts:
    """The folders of one pod."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def localize(self, text: str) -> str:
        """Replace paths of the pod by those of this machine."""
        for path in ("/etc/", "/data"):
            text = text.replace(path, f"{self.folder}{path}")
        return text

    def write(self, documents: list[Json], kind: str, name: str) -> None:
        """Write the volumes whose Secrets and ConfigMaps are among the objects.

        All files of a volume that is there are replaced at once.
        """
        spec = pod_spec(documents, kind, name)
        files = {volume["name"]: _read_volume(volume, documents) for volume in spec["volumes"]}
        for container in spec["containers"]:
            for mount in container["volumeMounts"]:
                path = self.folder / mount["mountPath"].removeprefix("/")
                path.mkdir(parents=True, exist_ok=True)
                if content := files.get(mount["name"]):
                    _replace_files(path, content)


def _read_volume(volume: Json, documents: list[Json]) -> dict[str, bytes]:
    sources = (volume.get("projected") or {}).get("sources", [volume])
    files: dict[str, bytes] = {}
    for source in sources:
        if secret := source.get("secret"):
            name = secret.get("secretName", secret.get("name"))
            try:
                data = find_object(documents, "Secret", name)["data"]
            except ValueError:
                continue  # a Secret that the test does not need
            for item in secret["items"]:
                files[item["path"]] = b64decode(data[item["key"]])
        elif config := source.get("configMap"):
            data = find_object(documents, "ConfigMap", config["name"])["data"]
            files |= {path: text.encode() for path, text in data.items()}
    return files


def _replace_files(folder: Path, files: dict[str, bytes]) -> None:
    """Let `..data` point to a new folder with the files: programs see all old or all new ones."""
    version, link = folder / f"..{uuid.uuid4().hex}", folder / "..link"
    version.mkdir()
    for name, content in files.items():
        (version / name).write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    link.symlink_to(version.name)
    link.replace(folder / "..data")
