# Makes the data directory on the first start, then runs PostgreSQL with the arguments given.
# In: PGDATA, PASSWORD_FILE, POSTGRES_USER. The password is read from its file and never shown.
set -eu
umask 077

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # Aside, then moved into place: a start that was cut off leaves nothing that looks like a database.
  fresh="$PGDATA.new"
  rm -rf "$fresh"
  initdb --pgdata="$fresh" --username="${POSTGRES_USER:-postgres}" --pwfile="$PASSWORD_FILE" \
    --encoding=UTF8 --locale=C --auth-local=trust --auth-host=scram-sha-256 >/tmp/initdb.log 2>&1 || {
    cat /tmp/initdb.log >&2
    echo "start: initdb failed" >&2
    exit 1
  }
  mv "$fresh" "$PGDATA"
  echo "start: new data directory in $PGDATA"
fi

# A volume driver may have opened it to the group, which PostgreSQL refuses.
chmod 0700 "$PGDATA"
# The socket is this container's own; everybody else comes by network, with the password.
printf '%s\n' 'local all all trust' 'host all all all scram-sha-256' >"$PGDATA/pg_hba.conf"

postgres -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql "$@" &
server=$!
# Told to stop, Kubernetes sends TERM, which PostgreSQL takes for "when all clients have left"; INT is "now, and cleanly".
trap 'kill -INT "$server"' TERM INT

code=0
while kill -0 "$server" 2>/dev/null; do
  code=0
  wait "$server" || code=$?
done
exit "$code"
