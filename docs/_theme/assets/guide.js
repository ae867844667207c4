/* Material fetches the search index with every page. Here it waits until the search is
   used: a reader who only reads does not pay for it. */
{
  const { open, send } = XMLHttpRequest.prototype;
  const box = document.querySelector(".md-search");
  const toggle = document.getElementById("__search");

  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    this.waits = /\/search_index\.json$/.test(new URL(url, location).pathname);
    return open.call(this, method, url, ...rest);
  };

  XMLHttpRequest.prototype.send = function (...body) {
    const go = () => {
      if (this.waits) send.apply(this, body);
      this.waits = false;
    };
    if (!this.waits) return send.apply(this, body);
    if (toggle.checked || box.contains(document.activeElement)) return go();
    box.addEventListener("focusin", go, { once: true });
    box.addEventListener("pointerenter", go, { once: true });
    toggle.addEventListener("change", go, { once: true });
  };
}

/* Material cuts a Chinese query into the words of the index, but never looks for a word
   that reaches to the end of the query. A sign behind it, in no index, lets it. */
{
  const { postMessage } = Worker.prototype;
  const QUERY = 2;

  Worker.prototype.postMessage = function (message, ...rest) {
    if (message?.type === QUERY && typeof message.data === "string") {
      message = { ...message, data: message.data.replace(/\p{sc=Han}+/gu, "$&〇") };
    }
    return postMessage.call(this, message, ...rest);
  };
}
