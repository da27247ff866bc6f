"use strict";
// Adds what is pleasant: order of tables, zoom, and the numbers under the pointer. Everything can be read without it.
// Text only ever becomes text (textContent): names in the page are anybody's.
(() => {
  const UNITS = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, ms: 1e-3, s: 1, "%": 1 };
  const make = (name, text) => Object.assign(document.createElement(name), { textContent: text });

  // "+1.02 GiB" as a number; what is not known (a dash) comes last.
  const value = (text) => {
    const found = /^([+-]?[\d.,]+)\s*(B|KiB|MiB|GiB|TiB|ms|s|%)?$/.exec(text.trim());
    return found ? parseFloat(found[1].replaceAll(",", "")) * (UNITS[found[2]] ?? 1) : NaN;
  };

  const order = (table, index, descending) => {
    const rows = [...table.tBodies[0].rows];
    const keys = new Map(rows.map((row) => [row, row.cells[index]?.textContent ?? ""]));
    const numbers = rows.some((row) => !Number.isNaN(value(keys.get(row))));
    rows.sort((a, b) => {
      const [x, y] = [a, b].map((row) => (numbers ? value(keys.get(row)) : keys.get(row)));
      if (numbers && (Number.isNaN(x) || Number.isNaN(y))) return Number.isNaN(x) - Number.isNaN(y);
      const way = numbers ? x - y : x.localeCompare(y);
      return descending ? -way : way;
    });
    table.tBodies[0].append(...rows);
  };

  for (const table of document.querySelectorAll("table")) {
    if (table.tBodies[0].rows.length < 3) continue;
    [...table.tHead.rows[0].cells].forEach((cell, index) => {
      const button = make("button", cell.textContent);
      button.type = "button";
      cell.replaceChildren(button);
      button.addEventListener("click", () => {
        const descending = cell.getAttribute("aria-sort") !== "descending";
        for (const other of cell.parentElement.cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
        order(table, index, descending);
      });
    });
  }

  // Charts are laid out in parts of their width: a wider chart is a zoomed one.
  const MOST = 64;
  for (const box of document.querySelectorAll(".zoomable")) {
    const chart = box.firstElementChild;
    let zoom = 1;
    const to = (wanted, part) => {
      const before = zoom;
      zoom = Math.min(MOST, Math.max(1, wanted));
      const point = (box.scrollLeft + part * box.clientWidth) / before;
      chart.setAttribute("width", `${zoom * 100}%`);
      box.scrollLeft = point * zoom - part * box.clientWidth;
      box.dispatchEvent(new Event("zoomed"));
    };
    const tools = make("div", "");
    tools.className = "tools";
    for (const [text, name, change] of [["+", "zoom in", () => zoom * 2], ["−", "zoom out", () => zoom / 2], ["1:1", "show all", () => 1]]) {
      const button = make("button", text);
      button.type = "button";
      button.setAttribute("aria-label", `${text} ${name}: ${box.getAttribute("aria-label")}`);
      button.addEventListener("click", () => to(change(), 0.5));
      tools.append(button);
    }
    box.before(tools);
    box.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const part = (event.clientX - box.getBoundingClientRect().left) / box.clientWidth;
      to(zoom * (event.deltaY < 0 ? 1.25 : 0.8), part);
    }, { passive: false });

    // Frames: as much of the name as fits, and a click makes a frame as wide as the box.
    if (chart.classList.contains("flame")) {
      const frames = [...chart.querySelectorAll("g")];
      const fit = () => {
        const drawn = frames.map((frame) => frame.querySelector("rect").getBoundingClientRect().width);
        frames.forEach((frame, index) => {
          const room = Math.floor((drawn[index] - 6) / 6.2);
          const name = frame.querySelector("title").textContent.replace(/ \([\d,]+ bytes.*$/, "");
          const text = room < 3 ? "" : name.length <= room ? name : `${name.slice(0, room - 1)}…`;
          frame.querySelector("text").textContent = text;
        });
      };
      fit();
      box.addEventListener("zoomed", fit);
      window.addEventListener("resize", fit);
      for (const frame of frames) {
        frame.addEventListener("click", () => {
          const rect = frame.querySelector("rect");
          const [start, width] = ["x", "width"].map((name) => parseFloat(rect.getAttribute(name)) / 100);
          to(0.98 / width, 0);
          box.scrollLeft = start * chart.getBoundingClientRect().width;
        });
      }
    }
  }

  // The numbers under the pointer, from the list that comes with the chart.
  for (const figure of document.querySelectorAll("figure.timeline")) {
    const chart = figure.querySelector("svg.timeline");
    const spoken = (chart.dataset.spoken ?? "").split("|").map((item) => item.split("="));
    const points = spoken.map(([x, text]) => [parseFloat(x) / 100, text]);
    const readout = make("p", "");
    readout.className = "readout";
    figure.querySelector(".zoomable").after(readout);
    const pointer = document.createElementNS(chart.namespaceURI, "line");
    pointer.setAttribute("class", "pointer");
    pointer.setAttribute("y1", "20");
    pointer.setAttribute("y2", "280");
    chart.append(pointer);
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const part = (event.clientX - box.left) / box.width;
      const nearest = points.reduce((a, b) => (Math.abs(b[0] - part) < Math.abs(a[0] - part) ? b : a));
      for (const end of ["x1", "x2"]) pointer.setAttribute(end, `${nearest[0] * 100}%`);
      readout.textContent = nearest[1];
    });
  }
})();
