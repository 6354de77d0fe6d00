"use strict";
(() => {
  const copy = document.getElementById("copy");
  const command = document.getElementById("replay-command");
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command.textContent);
    } catch {
      getSelection().selectAllChildren(command);
      document.execCommand("copy");
    }
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  });

  const WIDTH_OF_A_TICK = 42;
  const PAPER = { width: 690, height: 960 };
  const run = JSON.parse(document.getElementById("timeline-data").textContent);
  const plot = document.getElementById("timeline-plot");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touched = matchMedia("(pointer: coarse)").matches;
  const whole = run.figure.layout.xaxis.range.slice();
  let printing = false;
  let range = whole;

  for (const trace of run.figure.data) {
    if (trace.meta === "bins") {
      const last = run.labels.length - 1;
      trace.customdata = trace.customdata.map(
        (text, place) => [run.labels[Math.min(Math.floor(trace.x[place]), last)], text]);
    }
  }
  const bright = JSON.stringify(run.figure);
  const inTheDark = (key, value) =>
    typeof value === "string" ? run.dark[value] ?? value.replace(/#[0-9a-f]{6}/g,
      (colour) => run.dark[colour] ?? colour) : value;

  const ticksFor = (width) => {
    const breadth = width / (range[1] - range[0]);
    const fits = (level) => {
      const seen = level.at.filter((at) => at >= range[0] && at <= range[1]);
      return seen.every((at, place) =>
        place === 0 || (at - seen[place - 1]) * breadth >= WIDTH_OF_A_TICK);
    };
    return run.ticks.find(fits) ?? run.ticks[run.ticks.length - 1];
  };

  const wholeRun = {
    name: "whole",
    title: "The whole run",
    icon: Plotly.Icons.home,
    click: () => { range = whole; draw(); },
  };

  const draw = () => {
    const figure = JSON.parse(bright, dark.matches && !printing ? inTheDark : undefined);
    const layout = figure.layout;
    const scale = printing ? Math.min(1, PAPER.height / layout.height) : 1;
    plot.style.zoom = scale;
    layout.width = printing ? PAPER.width / scale : plot.clientWidth;
    const ticks = ticksFor(layout.width - layout.margin.l - layout.margin.r);
    for (const axis of [layout.xaxis, layout.xaxis2]) {
      axis.range = range.slice();
      axis.tickvals = ticks.at;
      axis.ticktext = ticks.text;
    }
    // A finger that moves over the plot scrolls the page, until there is something to move.
    const zoomed = range[0] !== whole[0] || range[1] !== whole[1];
    layout.dragmode = touched ? (zoomed ? "pan" : false) : "zoom";
    return Plotly.react(plot, figure.data, layout, {
      displaylogo: false,
      displayModeBar: !printing,
      doubleClick: false,
      modeBarButtons: [["zoomIn2d", "zoomOut2d", wholeRun]],
      showTips: false,
    });
  };

  draw().then(() => {
    plot.on("plotly_relayout", (changed) => {
      let from = changed["xaxis.range[0]"] ?? changed["xaxis.range"]?.[0] ?? changed["xaxis2.range[0]"];
      let to = changed["xaxis.range[1]"] ?? changed["xaxis.range"]?.[1] ?? changed["xaxis2.range[1]"];
      if (changed["xaxis.autorange"] || changed["xaxis2.autorange"]) [from, to] = whole;
      if (from === undefined || to === undefined) return;
      from = Math.max(from, whole[0]);
      to = Math.min(to, whole[1]);
      if (from === range[0] && to === range[1]) return;
      range = [from, to];
      draw();
    });
    plot.on("plotly_doubleclick", () => { range = whole; draw(); });
    plot.dataset.drawn = "yes";
  });

  dark.addEventListener("change", draw);
  let width = plot.clientWidth;
  new ResizeObserver(() => {
    if (plot.clientWidth !== width && !printing) { width = plot.clientWidth; draw(); }
  }).observe(plot);
  addEventListener("beforeprint", () => { printing = true; draw(); });
  addEventListener("afterprint", () => { printing = false; draw(); });
})();
