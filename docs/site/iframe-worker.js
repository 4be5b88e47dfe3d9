// The theme searches in a Worker, which browsers refuse to pages that are opened from disk. There the worker's script runs
// in a hidden frame, which has the interface of a Worker. The theme looks for the name IFrameWorker.
if (location.protocol === "file:") {
  const run = (scope, url) => new Promise((loaded, failed) => {
    const script = scope.document.createElement("script");
    Object.assign(script, { src: url, onload: loaded, onerror: failed });
    scope.document.head.append(script);
  });
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      Object.assign(frame, { hidden: true, srcdoc: "<!doctype html>" });
      this.scope = new Promise((loaded) => { frame.onload = loaded; }).then(async () => {
        const scope = frame.contentWindow;
        scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        scope.importScripts = (...urls) => Promise.all(urls.map((each) => run(scope, each)));
        await run(scope, new URL(url, document.baseURI));
        return scope;
      });
      document.documentElement.append(frame);
    }

    postMessage(data) {
      this.scope.then((scope) => scope.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
