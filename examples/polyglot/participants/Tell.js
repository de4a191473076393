// A participant on the Node.js client.
const msgflo = require('msgflo-nodejs');

module.exports = (client, role) => {
  const definition = {
    component: 'Tell',
    icon: 'bullhorn',
    label: 'Puts a count into words',
    inports: [{ id: 'in', type: 'object' }],
    outports: [{ id: 'out', type: 'string' }],
  };
  const process = (inport, counted, send) => {
    send('out', null, `${counted.words} words: ${counted.text}`);
  };
  return new msgflo.participant.Participant(client, definition, process, role);
};
