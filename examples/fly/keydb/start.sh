#!/bin/sh
# Starts KeyDB as one of several active nodes: a replica of the node of each other region, found by a name of Fly's private
# DNS. KeyDB looks a name up at each connect, so a peer that comes back with another address is found, and one that is not
# there yet is waited for.
set -eu

: "${FLY_APP_NAME:?is set by Fly}" "${FLY_REGION:?is set by Fly}"
: "${KEYDB_DIR:?is the folder of the data: set it under [env] in fly.toml}"
: "${KEYDB_REGIONS:?are the regions with a node: set it under [env] in fly.toml}"
: "${KEYDB_PASSWORD:?is missing: fly secrets set KEYDB_PASSWORD=...}"
case " $KEYDB_REGIONS " in
    *" $FLY_REGION "*) ;;
    *)
        echo "this Machine is in $FLY_REGION, where the others would not look for it: add it to KEYDB_REGIONS in fly.toml" >&2
        exit 1
        ;;
esac

# With the password in it, which so is on no command line; for nobody else to read, and gone with the Machine.
umask 077
conf=$(mktemp)
{
    cat "$(dirname "$0")/keydb.conf"
    echo "dir $KEYDB_DIR"
    echo "requirepass $KEYDB_PASSWORD"
    # Peers ask each other for it.
    echo "masterauth $KEYDB_PASSWORD"
    for region in $KEYDB_REGIONS; do
        if [ "$region" != "$FLY_REGION" ]; then
            echo "replicaof $region.$FLY_APP_NAME.internal 6379"
        fi
    done
} >"$conf"

# In this shell's place, so that Fly's signal reaches it.
exec keydb-server "$conf"
