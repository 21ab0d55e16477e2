"""An installation with values-production.yaml, and what a site adds to these values."""

import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from busyapi.auth.credential import Credential, make_id
from e2e import environment, images
from e2e.certificates import Authority, CertificateFiles, trust
from e2e.jwt_provider import JwtProvider
from e2e.pages import run_blocks
from e2e.release import CHART, NAME, Release, merge_values
from e2e.scenarios.closed import CLOSED
from e2e.scenarios.faults import LABEL
from e2e.scenarios.protection import set_volumes_to_delete
from e2e.shell import make_shell
from e2e.target import ROOT
from testkit.http1 import Tls
from testkit.stamping import StampedClient, find_writer

Json = dict[str, Any]

VALUES = CHART / "values-production.yaml"
STORAGE_CLASS = ROOT / "k8s" / "data-protection" / "storage-class.yaml"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
INGRESS_SECRET, PROVIDER_SECRET, CLIENTS_SECRET = (
    "usages-tls",
    "busyapi-provider-ca",
    "busyapi-clients",
)
CHECKED = {"example.org/disks": "of-a-test"}
"""The annotation that the values ask for: disks of a test cluster are not encrypted."""
SALT_SECRET = f"{NAME}-writer-salt"
CLINIC, DEVICE, TEST_CLIENT = "clinic-app", "device-7", "helm-test"
"""The client with JWTs, that with a token, and the chart's own."""
VOLUME = "1Gi"
TOKEN_RATE = 1000
"""Usages per second of a client with a token."""


def make_values(*, host: str, jwt: Json, addresses: list[str], storage: str, node: str) -> Json:
    """Return values-production.yaml with the values that a site must change.

    `addresses` are those of the ingress controller as pods see it, `jwt` are values of `auth.jwt`.
    Valkey stays on a node, so that another one can be drained.
    """
    disk = {"persistence": {"size": VOLUME, "storageClass": storage}}
    provider = re.sub(r"https://|:\d+$", "", jwt["issuer"])
    site: Json = {
        "auth": {
            **CLOSED,
            "jwt": {**jwt, "caSecret": PROVIDER_SECRET},
            "existingSecret": CLIENTS_SECRET,
            "trustedProxies": [f"{address}/32" for address in addresses],
        },
        "networkPolicy": {
            "httpFrom": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}
            ],
            "jwtTo": [{"ipBlock": {"cidr": f"{provider}/32"}}],
        },
        "storageClassCheck": {"parameters": None, "annotations": CHECKED},
        "flusher": disk,
        "valkey": {**disk, "nodeSelector": {LABEL: node}},
        # No DNS knows this host.
        "tests": {"outside": {"enabled": False}},
    }
    values = merge_values(yaml.safe_load(VALUES.read_text()), site)
    return values | {
        "ingress": {
            "enabled": True,
            # Traefik then serves it with TLS only. Other controllers ignore this.
            "annotations": {"traefik.ingress.kubernetes.io/router.entrypoints": "websecure"},
            "hosts": [{"host": host}],
            "tls": [{"secretName": INGRESS_SECRET, "hosts": [host]}],
        }
    }


class Production:
    """The release, its provider of JWTs, its clients and its certificates."""

    def __init__(
        self, release: Release, folder: Path, provider: JwtProvider, authority: Authority
    ) -> None:
        self.release = release
        self.provider = provider
        self.authority = authority
        self.bash = make_shell(release, folder, has_busyapi=True)
        self.storage = f"retain-{release.namespace}"
        self.entries: dict[str, str] = {}
        """The tables of the clients with tokens."""
        self.tokens: dict[str, str] = {}

    def prepare(self) -> None:
        """Create what the values name, with the commands of the hardening guide and its links."""
        release = self.release
        tag = environment.exporter_image()
        images.build_exporter(release.target, tag, present=release.kube.has_image(tag))
        release.kube.delete_namespace()
        run_blocks(self.bash, "restricted-namespace")
        release.kube.apply(self.make_storage_class())
        run_blocks(self.bash, "archive-ca")
        run_blocks(self.bash, "archive-certificates")
        self.renew_ingress_certificate()
        self.bash.settings["PROVIDER_CA"] = str(self.authority.ca)
        run_blocks(self.bash, "provider-ca")
        self.store_tokens()
        release.gateway_host = ""  # it has no certificate
        release.tls = Tls(trust(self.authority.ca), release.host)

    def make_values(self) -> Json:
        """Return the values of this cluster."""
        kube = self.release.kube
        return make_values(
            host=self.release.host,
            jwt=self.provider.settings(),
            addresses=kube.node_addresses(),
            storage=self.storage,
            node=kube.nodes()[0].metadata.labels[LABEL],
        )

    def make_storage_class(self) -> Json:
        """Return the class of k8s/data-protection, with the driver of the default class."""
        storage: Any = client.StorageV1Api(self.release.kube.api)
        (default,) = (
            entry
            for entry in storage.list_storage_class().items
            if (entry.metadata.annotations or {}).get(DEFAULT_CLASS) == "true"
        )
        document: Json = yaml.safe_load(STORAGE_CLASS.read_text())
        return document | {
            "metadata": {"name": self.storage, "annotations": CHECKED},
            "provisioner": default.provisioner,
            "parameters": default.parameters or {},
        }

    def renew_ingress_certificate(self) -> CertificateFiles:
        """Create a certificate for the Ingress, replace its Secret, and return the files."""
        files = self.authority.issue(f"DNS:{self.release.host}")
        (self.bash.folder / "tls.crt").write_text(files.certificate)
        (self.bash.folder / "tls.key").write_text(files.key)
        run_blocks(self.bash, "ingress-certificate")
        return files

    def create_token(self, name: str, *scopes: str) -> None:
        """Create a client with a token. It is accepted after `store_tokens`."""
        command = (sys.executable, "-m", "busyapi", "token", "create", name)
        options = ("--scopes", ",".join(scopes), "--rate", str(TOKEN_RATE))
        output = subprocess.run(
            [*command, *options], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        token, entry = output.split("\n\n", 1)
        self.entries[name] = entry.partition("\n")[2]
        self.tokens[name] = token.splitlines()[1]

    def find_client(self, name: str) -> StampedClient:
        """Return a client with a token."""
        return StampedClient(self.tokens[name], self._find_writer("token", name))

    def issue_client(self, name: str, scope: str, *, key_name: str = "") -> StampedClient:
        """Return a client with a new JWT, whose usages belong to issuer and client."""
        token = self.provider.issue(name, scope, key_name=key_name)
        return StampedClient(token, self._find_writer("jwt-client", self.provider.url, name))

    def _find_writer(self, kind: str, *names: str) -> str:
        secret = self.release.kube.core.read_namespaced_secret(SALT_SECRET, self.release.namespace)
        salt = b64decode(secret.data["salt"])
        return find_writer(salt.strip(), Credential(make_id(kind, *names), names[-1], frozenset()))

    def start_clients(self) -> None:
        """Let requests and loads have credentials: a JWT of one client, and a token of another."""
        reader = self.issue_client(CLINIC, "write read")
        self.release.token = reader.token
        self.release.clients = (reader, self.find_client(DEVICE))
        self.release.test_writer = self._find_writer("token", TEST_CLIENT)

    def store_tokens(self) -> None:
        """Store the tables of all clients in their Secret."""
        path = self.bash.folder / "tokens.toml"
        path.write_text("\n".join(self.entries.values()))
        self.bash.settings["TOKENS"] = str(path)
        run_blocks(self.bash, "tokens")

    def clean_up(self) -> None:
        """Delete what does not end with the namespace: the class, and later the volumes."""
        set_volumes_to_delete(self.release)
        self.release.kube.delete(f"{CLASSES}/{self.storage}")
