
// ---- the list of jobs, and the fleet ----------------------------------------------------------------------------------

async function viewJobs(main, stop) {
  let cursor = "", shown = false;
  const jobs = h("section"), more = h("button", { hidden: "" }, "Older jobs"), newest = h("button", { hidden: "" }, "Newest jobs");
  const turn = next => { cursor = next; show().catch(trouble); };
  more.addEventListener("click", () => turn(more.dataset.next));
  newest.addEventListener("click", () => turn(""));
  main.replaceChildren(h("h1", {}, "Jobs"), jobs, newest, " ", more);
  jobs.append(soft("Reads the API …"));
  async function show() {
    const page = await get(`/v1/jobs?limit=50${cursor && `&cursor=${cursor}`}`, stop);
    more.hidden = !page.next_cursor;
    more.dataset.next = page.next_cursor || "";
    newest.hidden = !cursor;
    const rows = page.items.map(job => [
      [h("a", { href: `#/jobs/${job.id}` }, job.name), h("div", { class: "soft small" }, job.id)],
      [pill(job.phase, mood(job.phase)), " ", h("span", { class: "soft small" }, ENDED.includes(job.phase) ? "" : `for ${lasted(job.phase_since)}`), job.cause && h("div", { class: "bad small" }, job.cause.message)],
      // Which round an ended job came to, its rounds say.
      ENDED.includes(job.phase) ? "–" : [h("div", {}, ofRounds(job.round, job)), bar(job.round ?? 0, null, job.rounds_total)],
      ago(job.submitted_at), job.submitter,
    ]);
    fill(jobs, rows.length ? table(["job", "phase", "round", "submitted", "by"], rows) : await nothing());
  }
  const nothing = async () => {
    const [fleet, models] = await Promise.all([get("/v1/workers?limit=1", stop), get("/v1/models?limit=1", stop)]);
    const next = [
      !fleet.items.length && ["let a site join: ", command("fedpipe worker --config site.toml"), " at the site"],
      !models.items.length && ["store a model: ", command("fedpipe model push path/to/model --storage s3.toml")],
      ["submit a job: ", command("fedpipe job submit -f job.yaml --watch")],
    ].filter(Boolean);
    return [h("p", {}, "No job yet. Next:"), h("ul", {}, next.map(one => h("li", {}, one)))];
  };
  await every(JOBS_MS, stop, show);
}

async function viewFleet(main, stop) {
  const fleet = h("section", {}, soft("Reads the API …"));
  main.replaceChildren(h("h1", {}, "Fleet"), fleet);
  await every(JOBS_MS, stop, async () => {
    const page = await get("/v1/workers?limit=500", stop);
    const rows = page.items.map(worker => [
      [h("b", {}, worker.worker), " ", pill(worker.liveness, worker.liveness === "alive" ? "good" : "bad"), h("div", { class: "soft small" }, "heard ", ago(worker.last_beat_at))],
      [doing(worker), worker.job && [" ", h("a", { class: "small", href: `#/jobs/${worker.job}` }, worker.job)]],
      [h("span", { class: "whole" }, `${bytes(worker.memory_bytes)} of ${bytes(worker.memory_limit_bytes)}`), bar(worker.memory_bytes, null, worker.memory_limit_bytes), h("div", { class: "soft small" }, counted(worker.threads, "thread"))],
      Object.entries(worker.datasets).map(([name, set]) => h("div", {}, `${name}: ${counted(set.records, "record")}, ${set.held_out} held out${set.skipped ? `, ${set.skipped} unreadable` : ""}`)),
      h("span", { title: `${worker.host}, version ${worker.version}` }, worker.policy || "–"),
    ]);
    const none = [h("p", {}, "No site has joined yet. Next, at a site: ", command("fedpipe doctor --config site.toml"), ", then ", command("fedpipe worker --config site.toml"), "."), soft("On one machine, to try it: ", command("fedpipe up --fleet fleet.toml"))];
    fill(fleet, rows.length ? table(["site", "does", "memory", "data", "policy"], rows) : none);
  });
}

function doing(site) {
  const words = [site.stage || "not heard yet", far(site), pace(site)];
  return words.filter(Boolean).join(", ");
}

/** How far its task is; transfers count bytes. */
function far({ stage, progress }) {
  if (!progress?.total) return null;
  const format = ["downloading", "uploading"].includes(stage) ? bytes : String;
  return `${format(progress.done)} of ${format(progress.total)}`;
}

/** How it gets on with what it learns. */
function pace({ stage, progress }) {
  if (!progress || stage !== "training") return null;
  const words = [progress.tokens_per_second && `${Math.round(progress.tokens_per_second)} tokens/s`, progress.loss && `loss ${fixed(progress.loss)}`];
  return words.filter(Boolean).join(", ");
}
