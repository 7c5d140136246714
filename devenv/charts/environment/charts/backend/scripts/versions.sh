# Shared by the two scripts beside it: who to ask, and which schema version a database has.
# In: TEMPORAL_{STORE,VISIBILITY}_{HOST,PORT,USER,DATABASE}, their passwords, DEFAULT_PORT, DEFAULT_USER.
set -eu
umask 077
export PGCONNECT_TIMEOUT=5 PGAPPNAME=temporal-schema LC_ALL=C

use_store() {
  export PGHOST="$TEMPORAL_STORE_HOST" PGPORT="${TEMPORAL_STORE_PORT:-$DEFAULT_PORT}"
  export PGUSER="${TEMPORAL_STORE_USER:-$DEFAULT_USER}" PGPASSWORD="$TEMPORAL_STORE_PASSWORD"
}

use_visibility() {
  export PGHOST="$TEMPORAL_VISIBILITY_HOST" PGPORT="${TEMPORAL_VISIBILITY_PORT:-$DEFAULT_PORT}"
  export PGUSER="${TEMPORAL_VISIBILITY_USER:-$DEFAULT_USER}" PGPASSWORD="$TEMPORAL_VISIBILITY_STORE_PASSWORD"
}

# SQL from standard input, in a database; further arguments go to psql
sql() {
  database=$1
  shift
  psql -XAtq -v ON_ERROR_STOP=1 "$@" -d "$database"
}

# "1.19", or nothing where there is no schema yet
version() {
  sql "$1" <<'SQL'
SELECT to_regclass('schema_version') IS NOT NULL AS known \gset
\if :known
SELECT curr_version FROM schema_version WHERE version_partition = 0 AND db_name = current_database();
\endif
SQL
}

# is version $1 at least $2? Both are major.minor
at_least() {
  [ -n "$1" ] || return 1
  [ "${1%%.*}" -eq "${2%%.*}" ] || {
    [ "${1%%.*}" -gt "${2%%.*}" ]
    return
  }
  [ "${1#*.}" -ge "${2#*.}" ]
}
