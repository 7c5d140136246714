# Creates Temporal's two databases and brings them to the schema that the server needs. Comes after versions.sh.
# Safe to run again, and beside another of its kind: a lock in Temporal's database lets one migrate at a time.
# In: TEMPORAL_REQUIRES, VISIBILITY_REQUIRES, ADMIN_DATABASE, OWNER, WAIT_SECONDS; TEMPORAL_SQL and VISIBILITY_SQL
# (folders of SQL files), else the files inside temporal-sql-tool.

store=$TEMPORAL_STORE_DATABASE
visibility=$TEMPORAL_VISIBILITY_DATABASE
use_store

say() { echo "schema: $*"; }
die() {
  echo "schema: $*" >&2
  exit 1
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
    while [ -e /tmp/hold ]; do sleep 1; done
  } | sql "$store" >/tmp/locked 2>/tmp/lock.error &
  session=$!
  seconds=0
  until [ -s /tmp/locked ]; do
    kill -0 "$session" 2>/dev/null || die "cannot take the lock in $store: $(cat /tmp/lock.error)"
    between_steps
    [ $((seconds % 10)) -ne 5 ] || say "another migration holds the lock; waiting for it, $seconds s"
    seconds=$((seconds + 1))
    sleep 1
  done
}

unlock() {
  rm -f /tmp/hold
  wait "$session" || true
}

still_locked() { kill -0 "$session" 2>/dev/null || die "the lock's session ended: $(cat /tmp/lock.error)"; }

# Two Temporals on one database destroy each other's data.
own() {
  mark=$(sql "$1" <<'SQL'
SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = current_database();
SQL
  )
  hint="name another one in backend.temporalConfig.postgres.database; to take this one over: COMMENT ON DATABASE \"$1\" IS 'devenv owner: $OWNER'"
  case $mark in
    "devenv owner: $OWNER") return ;;
    "devenv owner: "*) die "database $1 belongs to ${mark#devenv owner: }, not to $OWNER; $hint" ;;
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
  [ -z "$mark" ] || {
    say "database $1 keeps its comment, so it is not marked as $OWNER's"
    return
  }
  sql "$1" -v owner="devenv owner: $OWNER" <<'SQL' || say "database $1 is not marked as $OWNER's: see the error above"
SELECT format('COMMENT ON DATABASE %I IS %L', current_database(), :'owner') \gexec
SQL
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

tool() {
  {
    SQL_DATABASE=$1 /tools/temporal-sql-tool "$2" "$3" "$4" 2>&1 || : >/tmp/failed
  } | told "$1"
  [ ! -e /tmp/failed ] || die "$2 failed on database $1: see the error above"
}

migrate() { # database, version needed, name inside the tool, folder or nothing
  between_steps
  still_locked
  have=$(version "$1")
  at_least "$have" "$2" && return
  say "database $1: from schema ${have:-none} to $2"
  [ -n "$have" ] || tool "$1" setup-schema -v 0.0
  if [ -n "$4" ]; then
    # A ConfigMap shows its folders as links, which the tool does not take for folders.
    mkdir -p "/tmp/sql/$1"
    cp -RL "$4"/v* "/tmp/sql/$1"
    tool "$1" update-schema -d "/tmp/sql/$1"
  else
    tool "$1" update-schema --schema-name "$3"
  fi
  have=$(version "$1")
  at_least "$have" "$2" || die "database $1 has schema ${have:-none} after the migration, the server needs $2"
}

wait_for_server
if current && own "$store" && own "$visibility"; then
  say "nothing to do: $store $have_store, $visibility $have_visibility"
  exit 0
fi
opens "$ADMIN_DATABASE" || opens "$store" || die "PostgreSQL at $PGHOST:$PGPORT refuses $PGUSER: $(cat /tmp/opens)"
create "$store"
create "$visibility"
lock
own "$store"
own "$visibility"
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
unlock
say "done: $store $have_store, $visibility $have_visibility"
