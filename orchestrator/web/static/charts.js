"use strict";
// Curves of one or several jobs, a drawing a metric. Jobs differ by colour and by dashes. Points come thinned from the server, or
// from the page itself where it is a shared file.
(() => {
  const place = document.getElementById("charts");
  if (!place) return;
  const inks = ["#1b6ac9", "#d1571a", "#23863b", "#8a3fb0", "#b0883f", "#3fb0a8"];
  const dashes = [[], [9, 5], [3, 4], [12, 4, 3, 4]];
  const boxes = new Map();
  const drawn = new Map();
  const titles = { loss: "loss", lr: "learning rate", eval_loss: "evaluation loss", grad_norm: "gradient norm", tokens_per_second: "tokens per second", memory_gib: "memory, GiB" };

  const joined = (series) => {
    if (series.length === 1) return [series[0].x, series[0].y];
    return uPlot.join(series.map((each) => [each.x, each.y]));
  };

  const boxed = (metric) => {
    const box = document.createElement("figure");
    box.className = "chart";
    const title = document.createElement("h3");
    title.textContent = titles[metric.name] || metric.name;
    box.append(title);
    place.append(box);
    boxes.set(metric.name, box);
  };

  const draw = (metric) => {
    const old = drawn.get(metric.name);
    const data = joined(metric.series);
    if (old) { old.setData(data); return; }
    const box = boxes.get(metric.name);
    const name = titles[metric.name] || metric.name;
    const ink = getComputedStyle(document.body).getPropertyValue("--soft");
    const line = getComputedStyle(document.body).getPropertyValue("--line");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
    const options = {
      width: Math.max(200, box.clientWidth - 16),
      height: 220,
      scales: { x: { time: false } },
      axes: [axis, { ...axis, size: 64, values: (_, ticks) => ticks.map((value) => value === 0 ? "0" : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5 ? value.toExponential(1) : String(+value.toPrecision(4))) }],
      series: [{ label: "step" }, ...metric.series.map((each, n) => ({
        label: each.job, stroke: inks[n % inks.length], dash: dashes[n % dashes.length], width: 1.5, spanGaps: true, points: { show: each.x.length < 60 },
      }))],
    };
    const chart = new uPlot(options, data, box);
    const last = metric.series.map((each) => `${each.job}: ${each.y[each.y.length - 1]} at step ${each.x[each.x.length - 1]}`).join("; ");
    chart.root.setAttribute("role", "img");
    chart.root.setAttribute("aria-label", `${name} by step; ${last}`);
    drawn.set(metric.name, chart);
  };

  window.drawCharts = async () => {
    const kept = document.getElementById("data");
    let found;
    if (kept) {
      found = JSON.parse(kept.textContent);
    } else {
      const query = new URLSearchParams(JSON.parse(place.dataset.jobs).map((id) => ["job", id]));
      query.append("width", String(Math.round(place.clientWidth) || 800));
      const answer = await fetch(document.body.dataset.root + "/curves.json?" + query);
      if (!answer.ok) return;
      found = await answer.json();
    }
    if (!found.metrics.length) { place.textContent = "No metrics yet."; return; }
    if (!drawn.size) place.textContent = "";
    for (const metric of found.metrics) if (!boxes.has(metric.name)) boxed(metric);  // all of them first: then each has its width
    for (const metric of found.metrics) draw(metric);
  };

  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => drawn.forEach((chart) => chart.setSize({ width: Math.max(200, chart.root.parentElement.clientWidth - 16), height: 220 })), 150);
  });
  window.drawCharts();
})();
