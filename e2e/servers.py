"""External Redis as Kubernetes objects: Sentinels, a Cluster of six, standalone servers, TLS."""

from hashlib import sha256
from typing import Any

from e2e.environment import valkey_image

Json = dict[str, Any]

NAME = "redis"
"""Of the Service, and of the StatefulSet if there is one."""
PORT, SENTINEL_PORT = 6379, 26379
PASSWORD = "not-a-secret-outside-of-this-namespace"
SECRET = "redis-password"
SERVER = "server"
"""The container with the data."""
MASTER = "mymaster"
COMMON = """\
set -eu
host=$HOSTNAME.redis
group=${HOSTNAME%-*}
# A flusher that says which servers may be promoted writes this file.
: > /data/valkey.conf
set -- valkey-server /data/valkey.conf --dir /data --port 6379 --protected-mode no \\
  --requirepass $PASSWORD --primaryauth $PASSWORD --appendonly yes --appendfsync always \\
  --no-appendfsync-on-rewrite no --save '' --maxmemory-policy noeviction \\
  --repl-diskless-sync-delay 0 --repl-ping-replica-period 1 --repl-timeout 3
"""
WAIT = """
# A restarted server waits until the others have voted. Without this there is no failover.
if [ -e /data/appendonlydir ]; then sleep 10; fi
"""
REPLICA = (
    COMMON
    + WAIT
    + f"""
primary=$group-0.redis
for n in 0 1 2; do
  found=$(timeout 2 valkey-cli -h $group-$n.redis -p {SENTINEL_PORT} --raw \\
    SENTINEL GET-MASTER-ADDR-BY-NAME {MASTER} 2>/dev/null | head -n 1) || found=
  case $found in $group-*) primary=$found; break ;; esac
done
if [ "$primary" != "$host" ]; then set -- "$@" --replicaof $primary 6379; fi
exec "$@" --replica-announce-ip $host --replica-priority 0
"""
)
SENTINEL = f"""\
set -eu
file=/data/sentinel.conf
if [ ! -e $file ]; then cat > $file <<END
port {SENTINEL_PORT}
dir /tmp
protected-mode no
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $HOSTNAME.redis
sentinel monitor {MASTER} ${{HOSTNAME%-*}}-0.redis 6379 2
sentinel auth-pass {MASTER} $PASSWORD
sentinel down-after-milliseconds {MASTER} 2000
sentinel failover-timeout {MASTER} 6000
END
fi
exec valkey-server $file --sentinel
"""
NODE = (
    COMMON
    + WAIT
    + """
exec "$@" --cluster-enabled yes --cluster-config-file /data/nodes.conf \\
  --cluster-node-timeout 2000 --cluster-announce-ip $POD_IP
"""
)

HOLD = "/data/hold"
"""While a standalone server has this file, it does not start."""
STANDALONE = (
    COMMON
    + f"""
while [ -e {HOLD} ]; do sleep 0.2; done
exec "$@"
"""
)

USER, CA, FILES = "busyapi", "redis-ca", "redis-tls"
"""The user and the Secrets of the server with TLS."""
RIGHTS = (
    "~busyapi:* +evalsha +script|load +info +config|get +waitaof +time +get +set +pexpire +exists"
    " +hget +hlen +hmget +hset +hdel +hexists +incrby +xadd +xrange +xread +xtrim"
)
"""The rights that the chart's page lists for this user."""
USERS = f"""\
user default on #{sha256(PASSWORD.encode()).hexdigest()} ~* &* +@all
user {USER} on #{sha256(PASSWORD.encode()).hexdigest()} {RIGHTS}
"""
SINGLE = f"""\
set -eu
if [ ! -e /data/users.acl ]; then cat > /data/users.acl <<END
{USERS}END
fi
exec valkey-server --dir /data --port 0 --tls-port {PORT} --tls-auth-clients no \
  --tls-cert-file /tls/old.crt --tls-key-file /tls/old.key --aclfile /data/users.acl \
  --appendonly yes --appendfsync always --save '' --maxmemory-policy noeviction
"""


def make_sentinels(*groups: str) -> list[Json]:
    """Return three servers, one of them the primary, each with a Sentinel in its pod.

    There are as many for each of several groups.
    """
    containers = [
        _container(SERVER, REPLICA, PORT),
        _container("sentinel", SENTINEL, SENTINEL_PORT),
    ]
    sets = [_stateful(3, containers, name) for name in groups or (NAME,)]
    return [_secret(), _service(), *sets]


def make_cluster() -> list[Json]:
    """Return six servers, for three primaries with a replica each."""
    return [_secret(), _service(), _stateful(6, [_container(SERVER, NODE, PORT)])]


def make_standalone(servers: int) -> list[Json]:
    """Return servers that do not know each other."""
    return [_secret(), _service(), _stateful(servers, [_container(SERVER, STANDALONE, PORT)])]


def make_single(ca: str, files: dict[str, str]) -> list[Json]:
    """Return one server with TLS, the trusted CA, and all certificates that it will have."""
    container = _container(SERVER, SINGLE, PORT)
    container["volumeMounts"].append({"name": "tls", "mountPath": "/tls", "readOnly": True})
    stateful = _stateful(1, [container])
    stateful["spec"]["template"]["spec"]["volumes"] = [
        {"name": "tls", "secret": {"secretName": FILES}}
    ]
    return [_secret(), _secret(CA, {"ca.crt": ca}), _secret(FILES, files), _service(), stateful]


def _secret(name: str = SECRET, data: dict[str, str] | None = None) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": data or {"redis-password": PASSWORD},
    }


def _service() -> Json:
    ports = [{"name": "redis", "port": PORT}, {"name": "sentinel", "port": SENTINEL_PORT}]
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"app": NAME},
        "ports": ports,
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": spec}


def _container(name: str, script: str, port: int) -> Json:
    return {
        "name": name,
        "image": valkey_image(),
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "env": [
            {"name": "PASSWORD", "value": PASSWORD},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }


def _stateful(replicas: int, containers: list[Json], name: str = NAME) -> Json:
    labels = {"app": NAME, "group": name}
    pod = {
        "metadata": {"labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 999,
                "fsGroup": 999,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": containers,
        },
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "256Mi"}},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "serviceName": NAME,
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": pod,
            "volumeClaimTemplates": [claim],
        },
    }
