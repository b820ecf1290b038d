#!/bin/sh
# The relay that one writes by hand in Node, as a peer of the bench: it is told its server and its port by the environment.
exec node "$(dirname "$0")/node.mjs"
