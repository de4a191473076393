// Repeat on the original Node.js client: node amqp_nodejs.js MODULES ROLE [PREFETCH]
// Its ports are of the form ROLE.IN and ROLE.OUT; without PREFETCH it has its own default.
const [modules, role, prefetch] = process.argv.slice(2);
const msgflo = require(`${modules}/msgflo-nodejs`);

const definition = {
  component: "Repeat",
  label: "Repeats what it gets",
  inports: [{ id: "in", type: "any" }],
  outports: [{ id: "out", type: "any" }],
};
const options = prefetch ? { prefetch: Number(prefetch) } : {};
const client = msgflo.transport.getClient(process.env.BROKER, options);
const repeat = (inport, data, send) => send("out", null, data);
const participant = new msgflo.participant.Participant(client, definition, repeat, role);
participant.start((error) => {
  if (error) throw error;
  console.log("running");
});
