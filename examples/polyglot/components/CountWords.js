// A NoFlo component, for the graphs in graphs/.
const noflo = require('noflo');

exports.getComponent = () => {
  const component = new noflo.Component({
    description: 'Counts the words of a text',
    icon: 'calculator',
    inPorts: { in: { datatype: 'string' } },
    outPorts: { out: { datatype: 'object' } },
  });
  component.process((input, output) => {
    if (!input.hasData('in')) return;
    const text = input.getData('in');
    output.sendDone({ out: { text, words: text.split(' ').length } });
  });
  return component;
};
