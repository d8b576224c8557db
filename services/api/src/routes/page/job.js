
// ---- one job, live ----------------------------------------------------------------------------------------------------

async function viewJob(main, stop, id) {
  const head = h("div", {}, soft("Reads the API …")), why = h("section", { id: "why" }), about = h("section"), curves = [h("section"), h("section")], sites = h("section"), numbers = h("details"), list = h("ul", { id: "events" });
  const body = h("div", { hidden: "" }, h("div", { class: "two" }, why, about), h("div", { class: "two" }, curves), sites, h("section", {}, h("h2", {}, "Events"), list), h("section", {}, numbers));
  main.replaceChildren(head, body);
  const state = { job: null, rounds: [], plan: null, live: new Map(), open: new Set() };

  const load = async () => {
    const job = await get(`/v1/jobs/${id}`, stop);
    const moved = !state.job || job.epoch !== state.job.epoch || job.round !== state.job.round || job.phase !== state.job.phase;
    if (job.plan_version && job.plan_version !== state.plan?.version) state.plan = await get(`/v1/jobs/${id}/plan`, stop);
    if (moved) state.rounds = await rounds(id, stop);
    state.job = job;
    draw();
  };

  const draw = () => {
    const { job, rounds } = state;
    if (!job) return;
    document.title = `${job.name}: ${job.phase} – fedpipe`;
    body.hidden = false;
    fill(head, ...heading(job, rounds));
    fill(why, ...reasons(job));
    fill(about, h("h2", {}, "Job"), summary(job));
    fill(curves[0], h("h2", {}, "Loss"), lossCurve(rounds));
    fill(curves[1], h("h2", {}, "Balanced accuracy"), accuracyCurve(job, rounds));
    fill(sites, ...siteCards(state));
    fill(numbers, h("summary", {}, "Rounds in numbers"), roundTable(rounds));
  };

  let due = null, drawing = null;
  // Many sites say a lot; an eye sees five pictures a second.
  const redraw = () => { drawing ??= setTimeout(() => { drawing = null; if (!stop.aborted) draw(); }, DRAW_MS); };
  const soon = () => { due ??= setTimeout(() => { due = null; load().catch(trouble); }, 150); };
  const listening = follow(id, stop, (kind, data) => {
    if (kind === "progress") {
      state.live.set(data.worker, data);
      redraw();
      return;
    }
    list.prepend(h("li", {}, h("span", { class: "soft", title: data.at }, clock(data.at)), h("span", {}, pill(data.event, mood(data.event))), h("span", {}, tell(data.detail))));
    while (list.childElementCount > EVENTS_MOST) list.lastElementChild.remove();
    state.job = state.job && { ...state.job, epoch: -1 };
    soon();
  });
  await every(JOB_MS, stop, async () => { if (!state.job || !ENDED.includes(state.job.phase)) await load(); });
  await listening;
}

function heading(job, rounds) {
  const phase = job.phase === "paused" ? job.paused_phase : job.phase, at = STEPS.findIndex(step => step[1].includes(phase));
  const broken = ["failed", "cancelled"].includes(job.phase), ended = ENDED.includes(job.phase);
  const reached = job.round ?? rounds.at(-1)?.round;
  const steps = STEPS.map(([name], place) => {
    const last = place === STEPS.length - 1, kind = last && broken ? "bad" : place < at ? (broken ? null : "done") : place > at ? null : ended ? "done" : "now";
    return h("li", { class: kind }, last && broken ? job.phase : name, name === "trained" && reached != null ? ` ${ofRounds(reached, job)}` : "");
  });
  const meaning = ended ? [job.phase, " ", ago(job.phase_since)] : [job.phase === "evaluating" && !job.round ? UNTRAINED : MEANING[job.phase], ` For ${lasted(job.phase_since)} now.`, job.pause_requested ? " It pauses after this round." : ""];
  return [h("h1", {}, job.name, " ", pill(job.phase, mood(job.phase))), h("p", { class: "lead" }, meaning), h("ol", { class: "track" }, steps)];
}

function reasons(job) {
  const of = one => `${one.worker}: ${plain(one.trouble)}. ${one.detail}`;
  if (job.cause) return [h("h2", {}, "Why it failed"), h("p", { class: "bad" }, job.cause.message), h("ul", {}, job.cause.sites.map(site => h("li", {}, of(site))))];
  if (job.phase === "succeeded") return [h("h2", {}, "Result"), h("p", {}, "Fetch the adapter, which loads in Hugging Face PEFT: "), h("p", {}, command(`fedpipe job adapter ${job.id} -o adapter`))];
  if (job.phase === "cancelled") return [h("h2", {}, "Result"), soft("None: somebody cancelled it.")];
  const found = [
    job.phase === "paused" && h("li", {}, "go on with ", command(`fedpipe job resume ${job.id}`)),
    job.queue && h("li", {}, `place ${job.queue.place} in the queue${job.waiting_for.length ? "" : `: ${job.queue.reason}`}`),
    job.waiting_for.map(one => h("li", {}, one.worker && h("b", {}, `${one.worker}: `), one.why)),
  ].flat().filter(Boolean);
  return [h("h2", {}, "Why it waits"), found.length ? h("ul", {}, found) : soft("It waits for nobody.")];
}

// Where the job leaves them to the planner, each site has its own.
const stepsOf = steps => steps === "auto" ? "as many steps as each site's plan says" : counted(steps, "step");

function summary(job) {
  const ended = ENDED.includes(job.phase), data = job.spec.data;
  return facts([
    ["id", job.id], ["submitted", [ago(job.submitted_at), ` by ${job.submitter}`]],
    ["data", data.dataset], ["rounds", `${job.rounds_total}, each of ${stepsOf(job.spec.training.local_steps)}`],
    ["slow sites are left out", !ended && job.phase_deadline && ago(job.phase_deadline)], ["ends at the latest", !ended && ago(job.deadline)],
    ["best so far", job.best && `${plain(job.best.measure)} ${fixed(job.best.value)} after round ${job.best.round}`],
    ["kept", job.kept && `round ${job.kept.round}, ${job.kept.why}${job.kept.stopped_early ? `; ${job.kept.stopped_early}` : ""}`],
    ["adapter", job.adapter && `${bytes(job.adapter.bytes)}, ${job.adapter.sha256}`],
  ]);
}

const points = list => list.filter(point => point[1] != null);

function lossCurve(rounds) {
  const names = [...new Set(rounds.flatMap(round => round.workers.map(one => one.worker)))].sort();
  const of = name => points(rounds.map(round => [round.round, round.workers.find(one => one.worker === name)?.metrics.loss]));
  const lines = [{ name: "held out, all sites", kind: "main", points: points(rounds.map(round => [round.round, round.evaluation?.loss])) }];
  if (names.length <= SITES_AS_LINES) lines.push(...names.map((name, at) => ({ name: `${name}, training`, kind: `c${at}`, points: of(name) })));
  return chart("loss", lines, number => fixed(number, 2));
}

function accuracyCurve(job, rounds) {
  const { training, evaluation } = job.spec;
  const named = [training.labels, evaluation?.choices, training.choices].find(names => names && names.length) || [];
  const classes = named.length;
  if (classes < 2) return soft("This job has no choices to be right or wrong about (", command("evaluation.choices"), ", ", command("training.choices"), ", ", command("training.labels"), ").");
  const line = { name: "held out, all sites", kind: "main", points: points(rounds.map(round => [round.round, round.evaluation?.balanced_accuracy])) };
  return chart("accuracy", [line], number => share(number, 0), ["always the same answer", 1 / classes]);
}

function siteCards({ job, rounds, plan, live, open }) {
  const last = [...rounds].reverse().find(round => round.workers.length);
  const names = [...new Set([...Object.keys(plan?.workers || {}), ...job.sites.map(site => site.worker)])].sort();
  const more = names.length - SITES_AS_CARDS;
  const cards = names.slice(0, SITES_AS_CARDS).map(name => {
    const now = job.sites.find(site => site.worker === name), planned = plan?.workers[name], real = last?.workers.find(one => one.worker === name)?.metrics;
    const heard = ENDED.includes(job.phase) ? null : live.get(name) || now, mine = heard?.progress?.job === job.id && heard.progress.total;
    const late = job.late.find(one => one.worker === name);
    const bars = h("div", { class: "bars" },
      mine && [h("div", { class: "head" }, h("span", { class: "soft" }, heard.stage), h("span", {}, far(heard))), bar(heard.progress.done, null, heard.progress.total)],
      (real || planned) && [
        measured("step", real?.steps ? real.compute_seconds / real.steps : null, planned?.predicted.step_seconds, seconds),
        measured("peak memory", real?.peak_memory_bytes, planned?.predicted.peak_memory_bytes, bytes),
        measured("upload", real?.bytes_up, planned?.predicted.upload_bytes, bytes),
      ]);
    return h("div", { "data-site": name }, h("b", {}, name), " ", now && pill(now.liveness, now.liveness === "alive" ? "good" : "bad"), " ", h("span", { class: "soft" }, heard ? (mine ? pace(heard) || heard.stage : doing(heard)) : ""),
      late && h("p", {}, `late for round ${late.round}, goes on with it`), now?.lost && h("p", { class: "bad" }, `given up: ${plain(now.lost.trouble)}. ${now.lost.detail}`), bars, planned && whyPlanned(name, planned, open));
  });
  const out = (plan?.excluded || []).map(site => h("p", {}, h("b", {}, site.worker), ` takes no part: ${site.detail}`));
  const marks = plan && soft(last ? `Bars: round ${last.round}. The mark in a bar is what the plan predicts; more than a quarter above it is drawn in another colour.` : "The marks are what the plan predicts; the first round fills the bars.");
  return [h("h2", {}, "Sites: plan and reality"), marks, cards.length ? h("div", { class: "sites" }, cards) : soft("It has no sites yet."), more > 0 && soft(`${counted(more, "more site")}: `, command(`fedpipe job get ${job.id}`)), ...out];
}

/** Closed until its reader opens it, and then open for as long as the job is shown. */
function whyPlanned(site, planned, open) {
  const why = h("details", { class: "small", open: open.has(site) ? "" : null }, h("summary", { class: "soft" }, "Why this plan"), planned.why.text);
  why.addEventListener("toggle", () => open[why.open ? "add" : "delete"](site));
  return why;
}

function roundTable(rounds) {
  if (!rounds.length) return soft("No round is complete yet.");
  const of = round => [[h("span", { class: "narrow" }, "round "), String(round.round)], fixed(round.evaluation?.loss), share(round.evaluation?.balanced_accuracy), seconds(round.seconds), seconds(round.overhead_seconds), round.workers.map(one => one.worker).join(", ") || "–", round.missing.map(one => `${one.worker}: ${plain(one.trouble)}`).join("; ") || "–"];
  return h("div", { class: "scroll" }, table(["round", "loss", "accuracy", "took", "overhead", "merged", "missing"], rounds.map(of)));
}
