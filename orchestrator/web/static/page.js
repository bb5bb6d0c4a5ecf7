"use strict";
// Rows and facts follow the server's events; what changes is replaced by what the server rendered.
(() => {
  const root = document.body.dataset.root;
  const live = document.getElementById("live");
  const body = document.querySelector("#jobs tbody");
  const here = document.querySelector("[data-job]");
  const log = document.getElementById("log");
  let due = 0;

  const tail = async () => {
    if (!log) return;
    const answer = await fetch(log.dataset.from);
    if (!answer.ok) return;
    const below = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    log.textContent = await answer.text();
    if (below) log.scrollTop = log.scrollHeight;
  };

  const facts = async () => {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of ["#facts", "#state"]) {
      const old = document.querySelector(part), now = fresh.querySelector(part);
      if (old && now) old.replaceWith(now);
    }
    document.title = fresh.title;
  };

  const changed = (job) => {
    if (body) {
      const old = document.getElementById("job-" + job.id);
      if (!old) { live.textContent = "new jobs: load the page again"; return; }
      const made = document.createElement("tbody");
      made.innerHTML = job.html;  // rendered and escaped by the server; scripts in it would not run
      const row = made.firstElementChild;
      row.querySelector("input").checked = old.querySelector("input").checked;
      old.replaceWith(row);
    }
    if (here && here.dataset.job === job.id && !due) {
      due = setTimeout(async () => {
        due = 0;
        if (job.state !== here.dataset.state && /SUCCEEDED|FAILED|LOST|CANCELLED|QUEUED/.test(job.state)) { location.reload(); return; }
        await Promise.all([facts(), tail(), window.drawCharts && window.drawCharts()]);
      }, 300);
    }
  };

  if (body || here) {
    const source = new EventSource(root + "/events");
    source.addEventListener("job", (event) => changed(JSON.parse(event.data)));
    source.onopen = () => { live.textContent = "live"; };
    source.onerror = () => { live.textContent = "not connected; trying again"; };
    addEventListener("pagehide", () => source.close());
  }
  tail();
})();
