"""What an external PostgreSQL is asked before the release is touched. Pure.

In: the schema Job as rendered, which says all of it: host, TLS, databases, owner, image; out: `Question`, and the pod
and the script that ask it beside the release. What the answer means: objections.py.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from devenv import databases
from devenv.databases import environments, literal
from devenv.plan import fingerprint

Object = dict[str, Any]
Texts = Mapping[str, Mapping[str, str]]  # Kind/name → key → text

CONNECT_SECONDS = 4
CA_FILE = "/tmp/ca.crt"


class Question(NamedTuple):
    """`env` is libpq's; `databases` are Temporal's two, `schemas` what the server knows of each; `need`: connections
    that all servers' pools may open; `shards`: numHistoryShards."""

    env: Mapping[str, str]
    ca: str
    databases: tuple[str, str]
    admin: str
    owner: str
    need: int
    source: str
    schemas: tuple[str, str] = ("", "")
    shards: str = ""

    def __repr__(self) -> str:
        return f"Question({self.where!r})"  # without its password

    @property
    def where(self) -> str:
        return f"PostgreSQL at {self.env['PGHOST']}:{self.env['PGPORT']}, from {self.source}"

    def key(self, version: str) -> str:
        """Tells this question, with this version of the Secret, from all others; made of nothing secret."""
        plain = {name: text for name, text in self.env.items() if name != "PGPASSWORD"}
        server = [self.need, self.schemas, self.shards]
        return fingerprint([version, plain, self.ca, self.databases, self.admin, self.owner, server])


def sources(job: Object) -> set[str]:
    """What the Job reads, as Kind/name: Secrets of its variables, and what its CA is in."""
    spec = job["spec"]["template"]["spec"]
    found = {
        f"Secret/{entry['valueFrom']['secretKeyRef']['name']}"
        for entry in _container(job)["env"]
        if "secretKeyRef" in (entry.get("valueFrom") or {})
    }
    return found | {title for title, _ in _cas(spec)}


def _container(job: Object, name: str = "schema") -> Object:
    spec = job["spec"]["template"]["spec"]
    return next(one for one in [*spec["containers"], *(spec.get("initContainers") or [])] if one["name"] == name)


def _cas(spec: Object) -> Iterator[tuple[str, str]]:
    """(Kind/name, key) of the CA's certificate."""
    for volume in spec.get("volumes") or []:
        if volume["name"] != "postgresql-ca":
            continue
        named = volume.get("secret") or {}
        kind, name = ("Secret", named["secretName"]) if named else ("ConfigMap", volume["configMap"]["name"])
        items = (named or volume["configMap"]).get("items") or [{"key": "ca.crt"}]
        yield f"{kind}/{name}", items[0]["key"]


def question(objects: Sequence[Object], texts: Texts, source: str) -> Question | None:
    """What is to be asked; None where no schema Job is rendered: Temporal is off, or nothing of it changed."""
    job = databases.schema_job(objects)
    if job is None:
        return None
    env = {entry["name"]: _value(entry, texts) for entry in _container(job)["env"]}
    store = "TEMPORAL_STORE"
    asked = {
        "PGHOST": env[f"{store}_HOST"],
        "PGPORT": env[f"{store}_PORT"] or env["DEFAULT_PORT"],
        "PGUSER": env[f"{store}_USER"] or env["DEFAULT_USER"],
        "PGPASSWORD": env[f"{store}_PASSWORD"],
        "PGSSLMODE": env.get("PGSSLMODE", "disable"),
    }
    ca = "".join(texts.get(title, {}).get(key, "") for title, key in _cas(job["spec"]["template"]["spec"]))
    return Question(
        asked,
        ca,
        (env[f"{store}_DATABASE"], env["TEMPORAL_VISIBILITY_DATABASE"]),
        env.get("ADMIN_DATABASE") or "postgres",
        env.get("OWNER", ""),
        _pools(objects),
        source,
        databases.requires(objects),
        databases.shards(objects),
    )


def _value(entry: Mapping[str, Any], texts: Texts) -> str:
    reference = (entry.get("valueFrom") or {}).get("secretKeyRef") or {}
    if reference:
        return texts.get(f"Secret/{reference['name']}", {}).get(reference["key"], "")
    return str(entry.get("value") or "")


def _pools(objects: Sequence[Object]) -> int:
    """Services x replicas x the two pools of each."""
    configs = [str((one.get("data") or {}).get("config.yaml", "")) for one in objects if one["kind"] == "ConfigMap"]
    each = sum(int(number) for text in configs for number in re.findall(r"^\s*maxConns: (\d+)$", text, re.M))
    servers = {id(one): one for one, container, _ in environments(objects) if container == "temporal"}.values()
    return each * sum(int(one["spec"].get("replicas", 1)) for one in servers)


def pod(job: Object, name: str, seconds: int, of: str = "schema") -> Object:
    """A pod as the Job's, of one of its containers' images, that waits to be asked and ends by itself."""
    spec = job["spec"]["template"]["spec"]
    kept = ("automountServiceAccountToken", "enableServiceLinks", "securityContext", "imagePullSecrets")
    container = _container(job, of)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "devenv", "devenv/preflight": "true"}},
        "spec": {
            **{key: spec[key] for key in (*kept, "nodeSelector", "tolerations") if key in spec},
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "activeDeadlineSeconds": seconds,
            "containers": [
                {
                    **{key: container[key] for key in ("image", "imagePullPolicy", "securityContext")},
                    "name": "preflight",
                    "command": ["/bin/sh", "-c", f"sleep {seconds}"],
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "32Mi"},
                        "limits": {"cpu": "500m", "memory": "128Mi"},
                    },
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        },
    }


_SERVER = """SELECT json_build_object('of', 'server',
  'number', current_setting('server_version_num')::int,
  'version', split_part(current_setting('server_version'), ' ', 1),
  'limit', current_setting('max_connections')::int,
  'reserved', current_setting('superuser_reserved_connections')::int
    + coalesce(current_setting('reserved_connections', true)::int, 0),
  'others', (SELECT coalesce(sum(numbackends), 0) FROM pg_stat_database WHERE datname NOT IN ({names}))
    - (current_database() NOT IN ({names}))::int,
  'gin', EXISTS (SELECT FROM pg_available_extensions WHERE name = 'btree_gin'),
  'createdb', rolcreatedb OR rolsuper, 'role_limit', CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END)
FROM pg_roles WHERE rolname = current_user;
SELECT json_build_object('of', 'database', 'name', datname, 'owner', pg_get_userbyid(datdba),
  'mark', coalesce(shobj_description(oid, 'pg_database'), ''), 'limit', datconnlimit)
FROM pg_database WHERE datname IN ({names});"""
_INSIDE = """SELECT json_build_object('of', 'inside', 'name', current_database(),
  'tables', coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = 'public'), false),
  'schemas', has_database_privilege(current_database(), 'CREATE'),
  'started', to_regclass('schema_version') IS NOT NULL,
  'readable', coalesce((SELECT bool_and(has_table_privilege(oid, 'SELECT, UPDATE')) FROM pg_class
    WHERE oid IN (to_regclass('schema_version'), to_regclass('cluster_membership'))), true));
SELECT to_regclass('cluster_membership') IS NOT NULL AS served, to_regclass('schema_version') IS NOT NULL AS started,
  to_regclass('namespace_metadata') IS NOT NULL AS begun, to_regclass('cluster_metadata_info') IS NOT NULL AS recorded
\\gset
\\if :started
SELECT json_build_object('of', 'schema',
  'version', coalesce(max(curr_version) FILTER (WHERE db_name = current_database()), ''),
  'other', max(db_name) FILTER (WHERE db_name <> current_database()),
  'mark', coalesce(obj_description(to_regclass('schema_version'), 'pg_class'), ''),
  'tables', (SELECT count(*) FROM pg_tables WHERE schemaname = 'public'),
  'migrating', EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32 | objid::bigint) = hashtext('temporal-schema-setup')))
FROM schema_version WHERE version_partition = 0;
\\endif
\\if :begun
SELECT json_build_object('of', 'begun') FROM namespace_metadata LIMIT 1;
\\endif
\\if :recorded
SELECT json_build_object('of', 'recorded', 'shards', sum((get_byte(data, at + more) & 127) << (7 * more)))
FROM (SELECT data, get_byte(data, 1) + 3 AS at FROM cluster_metadata_info
  ORDER BY cluster_name <> 'active' LIMIT 1) AS one, generate_series(0, 2) AS more
WHERE more = 0 OR get_byte(data, at) > 127 AND (more = 1 OR get_byte(data, at + 1) > 127);
\\endif
\\if :served
SELECT json_build_object('of', 'live', 'at', string_agg(DISTINCT rpc_address, ', ')) FROM cluster_membership
WHERE last_heartbeat > now() AT TIME ZONE 'UTC' - interval '20 seconds';
\\endif"""

_ASK = """ask() { # database, how its answer is called; SQL from standard input
  echo "in $2"
  PGDATABASE="$1" psql -XAtqw -v ON_ERROR_STOP=1 2>&1 || { echo failed; return 1; }
}"""


def script(question: Question) -> str:
    """What the pod's shell reads from its standard input, the password included: nothing of it is in any argv."""
    env = {**question.env, "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS), "PGAPPNAME": "devenv-preflight", "LC_ALL": "C"}
    if env["PGSSLMODE"] == "verify-full":
        env["PGSSLROOTCERT"] = CA_FILE
    exports = [f"export {name}={shlex.quote(text)}" for name, text in env.items()]
    names = ", ".join(literal(name) for name in question.databases)
    admin, store, visibility = (shlex.quote(name) for name in (question.admin, *question.databases))
    lines = [
        "umask 077",
        *exports,
        f"printf %s {shlex.quote(question.ca)} >{CA_FILE}",
        _ASK,
        f'server() {{ ask "$1" "$2" <<\'SQL\'\n{_SERVER.format(names=names)}\nSQL\n}}',
        f'inside() {{ ask "$1" "$2" <<\'SQL\'\n{_INSIDE}\nSQL\n}}',
        f"server {admin} admin || server {store} instead || exit 0",
        f"inside {store} store",
        f"inside {visibility} visibility",
        "exit 0",
    ]
    return "\n".join(lines) + "\n"


def tool_script(question: Question) -> str:
    """The same connection by temporal-sql-tool. It would make a database that is there, so it makes none."""
    env = {
        "SQL_PLUGIN": "postgres12",
        "SQL_HOST": question.env["PGHOST"],
        "SQL_PORT": question.env["PGPORT"],
        "SQL_USER": question.env["PGUSER"],
        "SQL_PASSWORD": question.env["PGPASSWORD"],
        "SQL_DATABASE": question.admin,
        "SQL_TLS": "true",
        "SQL_TLS_CA_FILE": CA_FILE,
        "SQL_TLS_SERVER_NAME": question.env["PGHOST"],
    }
    exports = [f"export {name}={shlex.quote(text)}" for name, text in env.items()]
    ask = f"temporal-sql-tool create-database --defaultdb {shlex.quote(question.admin)} 2>&1"
    ca = f"printf %s {shlex.quote(question.ca)} >{CA_FILE}"
    return "\n".join(["umask 077", *exports, ca, "echo in certificate", ask, "echo failed", "exit 0"]) + "\n"
