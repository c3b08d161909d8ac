#!/usr/bin/env bash
# Succeeds when the broker serves clients: it asks for the cluster's metadata (Metadata request, version 1, no topics) and
# wants at least one live broker in the answer. A broker that listens but has not joined its controller yet names none.
# The console tools could ask as well, but each call would start a JVM, every few seconds, for as long as Kafka runs.
set -euo pipefail

exec 3<>/dev/tcp/127.0.0.1/19092
#       size 14         api 3   version 1 correlation 7   client null no topics
printf '\x00\x00\x00\x0e\x00\x03\x00\x01\x00\x00\x00\x07\xff\xff\x00\x00\x00\x00' >&3
reply=$(head -c 12 <&3 | od -An -v -tx1 | tr -d ' \n') # size, correlation, number of brokers
[[ ${reply:8:8} == 00000007 && ${reply:16:8} != 00000000 ]]
