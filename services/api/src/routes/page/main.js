
// ---- which view, who looks, and what is wrong -------------------------------------------------------------------------

let failing = null;

/** Says what is wrong, above everything, until something is read again. */
function trouble(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) return askForToken(error.message);
  failing ??= Date.now();
  const refused = error instanceof Refused ? error.message : "The API does not answer.";
  $("trouble").textContent = `${refused} ${error.status < 500 ? "" : `Trying again since ${clock(failing)}; what is shown may be old.`}`;
  $("trouble").hidden = false;
}

async function every(ms, stop, work) {
  while (!stop.aborted) {
    try {
      await work();
      if (stop.aborted) return;
      failing = null;
      $("trouble").hidden = true;
      $("state").textContent = `as of ${clock(Date.now())}`;
    } catch (error) {
      if (stop.aborted) return;
      trouble(error);
      if (error.status === 404) {
        $("main").replaceChildren(h("h1", {}, "Not found"), h("p", {}, h("a", { href: "#/" }, "All jobs"), ", or ", command("fedpipe job list")));
        return;
      }
      if (error.status === 401) return;
    }
    await pause(ms, stop);
  }
}

function askForToken(why) {
  current.abort();
  $("trouble").hidden = true;
  // Two requests of one view may be refused at once.
  if (document.querySelector("input[type=password]")) return;
  const refused = sessionStorage.getItem(KEY);
  const input = h("input", { type: "password", autocomplete: "off", "aria-label": "Token", required: "" });
  const form = h("form", {}, input, h("button", {}, "Look"));
  form.addEventListener("submit", event => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value.trim());
    route();
  });
  $("main").replaceChildren(h("h1", {}, "Token"), h("section", {},
    h("p", { class: refused ? "bad" : null }, refused ? why : "This service asks who you are. A viewer's token is enough."), form,
    soft("It stays in this tab until you close it. The operator makes one with ", command("fedpipe admin add-token NAME --role viewer"), ".")));
  sessionStorage.removeItem(KEY);
  $("state").textContent = "";
  $("forget").hidden = true;
  input.focus();
}

let current = new AbortController();
function route() {
  current.abort();
  current = new AbortController();
  failing = null;
  $("trouble").hidden = true;
  $("forget").hidden = !sessionStorage.getItem(KEY);
  const [, view, id] = location.hash.split("/"), main = $("main"), stop = current.signal;
  document.title = "fedpipe";
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    if (link.dataset.view === (view === "fleet" ? "fleet" : "jobs")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const shown = view === "fleet" ? viewFleet(main, stop) : view === "jobs" && /^job_[0-9a-f]{16}$/.test(id) ? viewJob(main, stop, id) : viewJobs(main, stop);
  shown.catch(trouble);
}

$("forget").addEventListener("click", () => { sessionStorage.removeItem(KEY); askForToken(""); });
addEventListener("hashchange", route);
route();
