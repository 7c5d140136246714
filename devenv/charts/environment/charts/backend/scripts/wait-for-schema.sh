# Waits until both databases have the schema that the server needs; the servers' init container. Comes after versions.sh.
# In: TEMPORAL_SERVICES, TEMPORAL_REQUIRES, VISIBILITY_REQUIRES, WAIT_SECONDS, RELEASE, NAMESPACE.

trap 'exit 143' TERM INT
seconds=0
said=

wait_for() { # database, version needed; the connection is set
  until have=$(version "$1" 2>/tmp/error) && at_least "$have" "$2"; do
    if [ -s /tmp/error ]; then
      why="$1 at $PGHOST:$PGPORT does not answer: $(cat /tmp/error)"
    else
      why="$1 has schema ${have:-none}, the server needs $2"
    fi
    [ "$why" = "$said" ] && [ $((seconds % 30)) -ne 0 ] || echo "waiting for the schema, $seconds s: $why"
    said=$why
    [ "$seconds" -lt "$WAIT_SECONDS" ] || {
      echo "gave up after $seconds s. The schema Job brings it; look at its log, and delete it where it ended on another database:" >&2
      echo "  kubectl -n $NAMESPACE logs -l app.kubernetes.io/instance=$RELEASE,app.kubernetes.io/component=schema --tail 50" >&2
      exit 1
    }
    seconds=$((seconds + 1))
    sleep 1
  done
  echo "$1 has schema $have"
}

use_store
wait_for "$TEMPORAL_STORE_DATABASE" "$TEMPORAL_REQUIRES"
use_visibility
wait_for "$TEMPORAL_VISIBILITY_DATABASE" "$VISIBILITY_REQUIRES"

# At its very first start each server writes the cluster's record, and of four at once some die of the duplicate:
# history, which takes longest to be ready, goes first.
recorded() {
  sql "$TEMPORAL_STORE_DATABASE" <<'SQL' 2>/tmp/error
SELECT 1 FROM cluster_metadata_info LIMIT 1;
SQL
}

use_store
until [ "$TEMPORAL_SERVICES" = history ] || [ -n "$(recorded)" ]; do
  [ $((seconds % 30)) -ne 0 ] || echo "waiting for the history service to write the cluster's record, $seconds s $(cat /tmp/error)"
  [ "$seconds" -lt "$WAIT_SECONDS" ] || {
    echo "gave up after $seconds s: the history service has not written the cluster's record; look at its log" >&2
    exit 1
  }
  seconds=$((seconds + 1))
  sleep 0.3
done
