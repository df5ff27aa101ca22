"""Sends handwritten digits to the queue `digits` and prints what the function DigitsQueue found.

    pip install azure-servicebus==7.15.0
    python samples/clients/send_digits.py [COUNT]

It is an ordinary client of Azure Service Bus: with another connection string in SERVICEBUS it speaks to Azure.
"""

import os
import pathlib
import sys

from azure.servicebus import ServiceBusClient, ServiceBusMessage

CONNECTION = os.environ.get(
    "SERVICEBUS",
    "Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;"
    "UseDevelopmentEmulator=true;",
)
DIGITS = pathlib.Path(__file__).parents[1] / "bundles" / "digits" / "sample-input.json"


def main(count):
    body = DIGITS.read_text()
    with ServiceBusClient.from_connection_string(CONNECTION) as client:
        with client.get_queue_sender("digits") as sender:
            sender.send_messages([ServiceBusMessage(body, content_type="application/json") for _ in range(count)])
        with client.get_queue_receiver("digits-scored") as receiver:
            received = 0
            while received < count:
                for message in receiver.receive_messages(count - received, max_wait_time=60):
                    print(str(message))
                    receiver.complete_message(message)
                    received += 1


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
