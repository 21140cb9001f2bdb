// Calls a farcall provider with what every browser has: fetch for calls, EventSource for streams.

const door = new URLSearchParams(location.search).get('door');
const show = (id, text, failed = false) => {
  const output = document.getElementById(id);
  output.textContent = text;
  output.className = failed ? 'failed' : '';
};

/// Calls a method. Throws what the provider answered if it is an error: { code, message, … }.
async function call(method, args) {
  const response = await fetch(`${door}/${method}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'farcall-timeout-ms': '2000' },
    body: JSON.stringify(args),
  });
  const body = await response.json();
  if (!response.ok) throw body;
  return body;
}

document.getElementById('quote').addEventListener('submit', async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  try {
    const quote = await call('Prices/quote', { sku: form.get('sku'), qty: Number(form.get('qty')) });
    show('quoted', `${quote.sku}: ${(quote.cents / 100).toFixed(2)}`);
  } catch (error) {
    // The application's own error comes with its value; anything else with a code.
    show('quoted', error.error?.Unknown ? `nobody sells ${error.error.Unknown.sku}` : `${error.code ?? ''} ${error.message}`, true);
  }
});

let events;
document.getElementById('follow').addEventListener('click', () => {
  events?.close();
  const ticks = [];
  events = new EventSource(`${door}/Prices/follow?${new URLSearchParams({ sku: 'tea', times: 5 })}`);
  events.onmessage = ({ data }) => {
    ticks.push(JSON.parse(data).cents);
    show('followed', ticks.join(' '));
  };
  // A browser connects again when a stream is over, unless it is closed here.
  events.addEventListener('end', () => {
    events.close();
    show('followed', `${ticks.join(' ')} and that is all`);
  });
  // Also what the browser calls a lost connection, which comes without data.
  events.addEventListener('error', ({ data }) => {
    events.close();
    show('followed', data ? JSON.parse(data).message : 'the connection was lost', true);
  });
});
document.getElementById('stop').addEventListener('click', () => {
  events?.close();
  show('followed', 'stopped');
});
