// A participant on the original Node.js client. It cannot bear what is bad.
const msgflo = require('msgflo-nodejs');

module.exports = (client, role) => {
  const definition = {
    component: 'Exclaim',
    icon: 'bolt',
    label: 'Adds a mark',
    inports: [{ id: 'in', type: 'string' }],
    outports: [{ id: 'out', type: 'string' }],
  };
  const process = (inport, text, send) => {
    if (text.includes('bad')) return send('out', new Error('bad'));
    return send('out', null, `${text}!`);
  };
  return new msgflo.participant.Participant(client, definition, process, role);
};
