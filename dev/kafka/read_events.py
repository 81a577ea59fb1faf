"""Reads the lines of ReadTopic.java from standard input as CloudEvents, by the SDK of Python, and prints the id and the
version in the data of each. It needs `cloudevents` from PyPI."""

import base64
import json
import sys

from cloudevents.v1.kafka import KafkaMessage, from_binary

for line in sys.stdin:
    record = json.loads(line)
    headers = {name: base64.b64decode(value) for name, value in record["headers"].items()}
    message = KafkaMessage(headers=headers, key=base64.b64decode(record["key"]), value=base64.b64decode(record["value"]))
    event = from_binary(message)
    assert event["specversion"] == "1.0", event
    assert event["subject"] == base64.b64decode(record["key"]).decode(), event
    assert record["partition"] == record["expected_partition"], record
    print(event["id"], event["type"], event.data["version"])
