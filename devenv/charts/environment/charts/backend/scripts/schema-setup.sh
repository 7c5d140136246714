# Creates Temporal's two databases and brings them to the schema that the server needs. Comes after versions.sh.
# Safe to run again, and beside another of its kind: a lock in Temporal's database lets one migrate at a time.
# In: TEMPORAL_REQUIRES, VISIBILITY_REQUIRES, HISTORY_SHARDS, ADMIN_DATABASE, OWNER, WAIT_SECONDS; INTERNAL, not empty
# where the server is the release's own; TEMPORAL_SQL and VISIBILITY_SQL (folders of SQL files), else the files inside
# temporal-sql-tool.

store=$TEMPORAL_STORE_DATABASE
visibility=$TEMPORAL_VISIBILITY_DATABASE
use_store

say() { echo "schema: $*"; }
die() {
  echo "schema: $*" >&2
  exit 1
}
# What no further try mends: the Job fails at once.
refuse() {
  echo "schema: $*" >&2
  exit 78
}

# A statement cut off half-way can leave a database that no further run mends: a stop is obeyed between the steps only.
stopping=
trap 'stopping=1; say "told to stop: the step under way is finished first"' TERM INT
between_steps() { [ -z "$stopping" ] || die "stopped, as told; nothing is half done"; }

wait_for_server() {
  seconds=0
  until pg_isready -q -t 3; do
    between_steps
    [ "$seconds" -lt "$WAIT_SECONDS" ] || die "gave up after $seconds s: no PostgreSQL answers at $PGHOST:$PGPORT"
    [ $((seconds % 10)) -ne 0 ] || say "waiting for PostgreSQL at $PGHOST:$PGPORT, $seconds s"
    seconds=$((seconds + 1))
    sleep 1
  done
}

current() {
  have_store=$(version "$store" 2>/dev/null) || return 1
  have_visibility=$(version "$visibility" 2>/dev/null) || return 1
  at_least "$have_store" "$TEMPORAL_REQUIRES" && at_least "$have_visibility" "$VISIBILITY_REQUIRES"
}

opens() { sql "$1" </dev/null >/tmp/opens 2>&1; }

create() {
  opens "$1" && return
  sql "$ADMIN_DATABASE" -v name="$1" <<'SQL' || opens "$1" || die "cannot make database $1 as $PGUSER: see the error above"
SELECT format('CREATE DATABASE %I', :'name') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
SQL
  opens "$1" || die "database $1 does not open: $(cat /tmp/opens)"
  say "made database $1"
}

# The lock is a session's, and the session is this script's: whatever ends the pod ends the lock.
lock() {
  rm -f /tmp/locked
  : >/tmp/hold
  trap 'rm -f /tmp/hold' EXIT
  {
    echo "SELECT pg_advisory_lock(hashtext('temporal-schema-setup'));"
    while [ -e /tmp/hold ]; do sleep 0.2; done
  } | sql "$store" >/tmp/locked 2>/tmp/lock.error &
  session=$!
  tries=0
  until [ -s /tmp/locked ]; do
    kill -0 "$session" 2>/dev/null || die "cannot take the lock in $store: $(cat /tmp/lock.error)"
    between_steps
    [ $((tries % 50)) -ne 25 ] || say "another migration holds the lock; waiting for it, $((tries / 5)) s"
    tries=$((tries + 1))
    sleep 0.2
  done
}

unlock() {
  rm -f /tmp/hold
  wait "$session" || true
}

still_locked() { kill -0 "$session" 2>/dev/null || die "the lock's session ended: $(cat /tmp/lock.error)"; }

# Two Temporals on one database destroy each other's data. The mark is the database's comment; where that is somebody
# else's, or not ours to write, the comment of the table that every migrated database has.
own() {
  mark=$(sql "$1" <<'SQL'
SELECT mark FROM (VALUES (1, (SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database())),
  (2, obj_description(to_regclass('schema_version'), 'pg_class'))) AS marks (place, mark)
WHERE mark LIKE 'devenv owner: %' ORDER BY place LIMIT 1;
SQL
  )
  hint="name another one in backend.temporalConfig.postgres.database; to take this one over: COMMENT ON DATABASE \"$1\" IS 'devenv owner: $OWNER'"
  case $mark in
    "devenv owner: $OWNER") return ;;
    ?*) refuse "database $1 belongs to ${mark#devenv owner: }, not to $OWNER; $hint" ;;
  esac
  live=$(sql "$1" <<'SQL'
SELECT to_regclass('cluster_membership') IS NOT NULL AS known \gset
\if :known
SELECT string_agg(DISTINCT rpc_address, ', ') FROM cluster_membership
WHERE last_heartbeat > now() AT TIME ZONE 'UTC' - interval '20 seconds';
\endif
SQL
  )
  [ -z "$live" ] || die "a Temporal that is not known to be $OWNER works on database $1, at $live; $hint"
  sql "$1" -v owner="devenv owner: $OWNER" <<'SQL' || say "database $1 is not marked as $OWNER's: see the error above"
SELECT shobj_description(oid, 'pg_database') IS NULL AND pg_has_role(datdba, 'USAGE') AS free,
  to_regclass('schema_version') IS NOT NULL AS migrated
FROM pg_database WHERE datname = current_database() \gset
\if :free
SELECT format('COMMENT ON DATABASE %I IS %L', current_database(), :'owner') \gexec
\elif :migrated
SELECT format('COMMENT ON TABLE schema_version IS %L', :'owner') \gexec
\endif
SQL
}

# The number of shards in the record that the first server wrote; nothing where none ever ran. The record is Proto3:
# 0a LENGTH NAME 10 NUMBER, of which each byte but the last has its highest bit set.
shards() {
  sql "$store" <<'SQL'
SELECT to_regclass('cluster_metadata_info') IS NOT NULL AS known \gset
\if :known
SELECT sum((get_byte(data, at + more) & 127) << (7 * more))
FROM (SELECT data, get_byte(data, 1) + 3 AS at FROM cluster_metadata_info ORDER BY cluster_name <> 'active' LIMIT 1) AS record,
  generate_series(0, 2) AS more
WHERE more = 0 OR get_byte(data, at) > 127 AND (more = 1 OR get_byte(data, at + 1) > 127);
\endif
SQL
}

# What no migration mends. The release's own server may be newer than its images: after a rollback it is.
fits() {
  begun=$(shards)
  [ "${begun:-$HISTORY_SHARDS}" = "$HISTORY_SHARDS" ] ||
    refuse "database $store was begun with numHistoryShards $begun, for as long as it lives; backend.temporal.server.config.numHistoryShards is $HISTORY_SHARDS: set it to $begun, or name another database"
  not_newer "$store" "$TEMPORAL_REQUIRES"
  not_newer "$visibility" "$VISIBILITY_REQUIRES"
}

not_newer() {
  have=$(version "$1")
  [ -n "$have" ] || ! renamed "$1" ||
    refuse "database $1 was restored under another name, so its schema's version is not found: UPDATE schema_version SET db_name = '$1'"
  [ -n "$INTERNAL" ] || at_least "$2" "${have:-0.0}" ||
    refuse "database $1 has schema $have, which a newer server brought; this one knows $2, and a downgrade is refused: deploy the newer server, or name another database"
}

renamed() {
  [ -n "$(sql "$1" <<'SQL'
SELECT to_regclass('schema_version') IS NOT NULL AS known \gset
\if :known
SELECT 1 FROM schema_version WHERE version_partition = 0 AND db_name <> current_database() LIMIT 1;
\endif
SQL
)" ]
}

# temporal-sql-tool tells every statement; kept of that: the versions reached, and what it was doing when an error came.
told() {
  doing=
  while IFS= read -r line; do
    case $line in
      *"Schema updated from"*)
        step=${line#*Schema updated from }
        say "database $1: ${step%%[!a-z0-9. ]*}"
        ;;
      *DEBUG*) doing=$line ;;
      *INFO*) ;;
      *)
        [ -z "$doing" ] || echo "$doing"
        doing=
        echo "$line"
        ;;
    esac
  done
}

tool() { # database, what to do, its arguments
  rm -f /tmp/failed
  database=$1
  shift
  {
    SQL_DATABASE=$database /tools/temporal-sql-tool "$@" 2>&1 || : >/tmp/failed
  } | told "$database"
  [ ! -e /tmp/failed ]
}

update() { # database, name inside the tool, folder or nothing
  if [ -n "$3" ]; then
    # A ConfigMap shows its folders as links, which the tool does not take for folders.
    mkdir -p "/tmp/sql/$1"
    cp -RL "$3"/v* "/tmp/sql/$1"
    tool "$1" update-schema -d "/tmp/sql/$1"
  else
    tool "$1" update-schema --schema-name "$2"
  fi
}

# The tool cannot go on where a first migration was cut off between some of its statements. No server ever ran on such
# a database, so nothing is lost with it; but only in a server of our own is it ours to empty.
again() { # as update
  [ -z "$(shards)" ] || die "update-schema failed on database $1: see the error above"
  cut="no Temporal ever ran on database $1; its first migration was cut off after schema $(version "$1"), with $(tables "$1") tables"
  [ -n "$INTERNAL" ] ||
    refuse "$cut. Make it anew, and deploy again: DROP DATABASE \"$1\"; CREATE DATABASE \"$1\" OWNER \"$PGUSER\""
  say "$cut: it is emptied and begun anew"
  tool "$1" setup-schema -v 0.0 --overwrite && update "$@" || die "update-schema failed on database $1, emptied: see the error above"
}

tables() {
  sql "$1" <<'SQL'
SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('schema_version', 'schema_update_history');
SQL
}

migrate() { # database, version needed, name inside the tool, folder or nothing
  between_steps
  still_locked
  have=$(version "$1")
  at_least "$have" "$2" && return
  say "database $1: from schema ${have:-none} to $2"
  [ -n "$have" ] || tool "$1" setup-schema -v 0.0 || die "setup-schema failed on database $1: see the error above"
  update "$1" "$3" "$4" || again "$1" "$3" "$4"
  have=$(version "$1")
  at_least "$have" "$2" || die "database $1 has schema ${have:-none} after the migration, the server needs $2"
}

wait_for_server
if current; then
  fits
  own "$store"
  own "$visibility"
  say "nothing to do: $store $have_store, $visibility $have_visibility"
  exit 0
fi
opens "$ADMIN_DATABASE" || opens "$store" || die "PostgreSQL at $PGHOST:$PGPORT refuses $PGUSER: $(cat /tmp/opens)"
create "$store"
create "$visibility"
lock
own "$store"
own "$visibility"
fits
export SQL_PLUGIN=postgres12 SQL_HOST="$PGHOST" SQL_PORT="$PGPORT" SQL_USER="$PGUSER" SQL_PASSWORD="$PGPASSWORD"
if [ "$PGSSLMODE" != disable ]; then
  export SQL_TLS=true
  case $PGSSLMODE in
    verify-full) export SQL_TLS_CA_FILE="$PGSSLROOTCERT" SQL_TLS_SERVER_NAME="$PGHOST" ;;
    *) export SQL_TLS_DISABLE_HOST_VERIFICATION=true ;;
  esac
fi
chmod 0700 /tools/temporal-sql-tool
migrate "$store" "$TEMPORAL_REQUIRES" postgresql/v12/temporal "${TEMPORAL_SQL:-}"
migrate "$visibility" "$VISIBILITY_REQUIRES" postgresql/v12/visibility "${VISIBILITY_SQL:-}"
current || die "the versions are not right after the migration: $store ${have_store:-none}, $visibility ${have_visibility:-none}"
own "$store"
own "$visibility"
unlock
say "done: $store $have_store, $visibility $have_visibility"
