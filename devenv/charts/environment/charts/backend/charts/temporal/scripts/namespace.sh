# Makes Temporal's namespace where it is missing. In: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, RETENTION, WAIT_SECONDS.
set -eu

tries=0
again() { # what is waited for
  seconds=$((tries * 3 / 10))
  [ "$seconds" -lt "$WAIT_SECONDS" ] || {
    echo "namespace: gave up after $seconds s waiting for $1" >&2
    exit 1
  }
  [ $((tries % 30)) -ne 0 ] || echo "namespace: waiting for $1, $seconds s"
  tries=$((tries + 1))
  sleep 0.3
}

until temporal operator cluster health >/dev/null 2>&1; do
  again "the frontend at $TEMPORAL_ADDRESS"
done
until temporal operator namespace describe -n "$TEMPORAL_NAMESPACE" >/dev/null 2>&1 ||
  temporal operator namespace create -n "$TEMPORAL_NAMESPACE" --retention "$RETENTION"; do
  again "namespace $TEMPORAL_NAMESPACE to be made"
done
echo "namespace: $TEMPORAL_NAMESPACE is there"
