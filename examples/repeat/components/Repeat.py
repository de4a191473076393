"""The classic way to write a component: a class. It works as it always did."""

import msgflo


class Repeat(msgflo.Participant):
    def __init__(self, role):
        definition = {
            "component": "Repeat",
            "label": "Repeat input data without change",
            "inports": [{"id": "in", "type": "any"}],
            "outports": [{"id": "out", "type": "any"}],
        }
        msgflo.Participant.__init__(self, definition, role)

    def process(self, inport, msg):
        self.send("out", msg.data)
        self.ack(msg)


if __name__ == "__main__":
    msgflo.main(Repeat)
