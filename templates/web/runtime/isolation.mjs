// Threads on hosts that cannot send headers: a service worker adds them, and the page is loaded again.

const TRIED = "ortc-isolation";

/**
 * Register the bundle's service worker where the page is not isolated, and load the page again.
 *
 * Resolves when there is nothing to do, or when the browser refuses: the model computes with one thread then.
 *
 * @param script URL of isolation.js, which answers for pages in its own directory and below.
 */
export async function isolate(script = new URL("../isolation.js", import.meta.url)) {
  if (globalThis.crossOriginIsolated || !navigator.serviceWorker) return;
  try {
    // Once a visit: a host that forbids service workers would have the page load for ever.
    if (sessionStorage.getItem(TRIED)) return;
    sessionStorage.setItem(TRIED, "1");
    await navigator.serviceWorker.register(script);
    await navigator.serviceWorker.ready;
    location.reload();
  } catch {
    return;
  }
  await new Promise(() => undefined);
}
