"use strict";
// Rows and facts follow the server's events; what changes is replaced by what the server rendered.
(() => {
  const root = document.body.dataset.root;
  const live = document.getElementById("live");
  const list = document.getElementById("jobs");
  const here = document.querySelector("[data-job]");
  const sweep = document.querySelector("[data-sweep]");
  const log = document.getElementById("log");

  const tail = async () => {
    if (!log) return;
    const answer = await fetch(log.dataset.from);
    if (!answer.ok) return;
    const below = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    log.textContent = await answer.text();
    if (below) log.scrollTop = log.scrollHeight;
  };

  // Put a new part in the place of an old one; what was chosen and what had the keyboard's focus has it still.
  const swap = (old, now) => {
    for (const each of old.querySelectorAll("input:checked")) {
      const same = now.querySelector(`input[value="${CSS.escape(each.value)}"]`);
      if (same) same.checked = true;
    }
    const at = old.contains(document.activeElement) ? document.activeElement : null;
    old.replaceWith(now);
    if (!at) return;
    const same = at.matches("a") ? `a[href="${CSS.escape(at.getAttribute("href"))}"]` : `input[value="${CSS.escape(at.value)}"]`;
    const found = document.querySelector(same);
    if (found) found.focus();
  };

  const parts = here ? ["#facts", "#state"] : sweep ? ["h1", "#facts", "#points tbody"] : ["#jobs tbody"];
  let due = 0, asked = 0;
  const refresh = async () => {
    due = 0;
    const mine = ++asked;
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const text = await answer.text();
    if (mine !== asked) return;  // an older answer that came late
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of parts) {
      const old = document.querySelector(part), now = fresh.querySelector(part);
      if (old && now) swap(old, now);
    }
    document.title = fresh.title;
    if (here || sweep) await Promise.all([tail(), window.drawCharts && window.drawCharts()]);
  };
  const soon = (wait) => { if (!due) due = setTimeout(refresh, wait); };

  const changed = (job) => {
    if (list) {
      const old = document.getElementById("job-" + job.id);
      if (!old) { if (list.dataset.fresh === "1") soon(1000); return; }  // new, or part of a sweep's row
      const made = document.createElement("tbody");
      made.innerHTML = job.html;  // rendered and escaped by the server; scripts in it would not run
      swap(old, made.firstElementChild);
    }
    if (sweep && sweep.dataset.sweep === job.sweep) soon(1000);
    if (here && here.dataset.job === job.id) {
      if (job.state !== here.dataset.state && /SUCCEEDED|FAILED|LOST|CANCELLED|QUEUED/.test(job.state)) { location.reload(); return; }
      soon(300);
    }
  };

  if (list || here || sweep) {
    const source = new EventSource(root + "/events");
    source.addEventListener("job", (event) => changed(JSON.parse(event.data)));
    source.onopen = () => { live.textContent = "live"; soon(0); };  // what changed before it was heard of
    source.onerror = () => { live.textContent = "not connected; trying again"; };
    addEventListener("pagehide", () => source.close());
  }
  tail();
})();
