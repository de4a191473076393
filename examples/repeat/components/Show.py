"""A classic component without outports, to see something."""

import msgflo


class Show(msgflo.Participant):
    def __init__(self, role):
        definition = {
            "component": "Show",
            "label": "Print what comes in",
            "inports": [{"id": "in", "type": "any"}],
            "outports": [],
        }
        msgflo.Participant.__init__(self, definition, role)

    def process(self, inport, msg):
        print("got:", msg.data)
        self.ack(msg)


if __name__ == "__main__":
    msgflo.main(Show)
