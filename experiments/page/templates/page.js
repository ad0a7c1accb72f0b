"use strict";
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const given = [...body.rows];
  const say = document.createElement("p");
  say.className = "skip";
  say.setAttribute("aria-live", "polite");
  table.parentElement.after(say);
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  const sort = (column, direction) => {
    const rows = [...given];
    if (direction) {
      const sign = direction === "ascending" ? 1 : -1;
      rows.sort((first, second) => {
        const [a, b] = [value(first, column), value(second, column)];
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * compare(a, b);
      });
    }
    body.append(...rows);
    heads.forEach((head, place) => {
      if (place === column && direction) head.setAttribute("aria-sort", direction);
      else head.removeAttribute("aria-sort");
    });
    say.textContent = direction ? `sorted by ${heads[column].dataset.name}, ${direction}` : "in the order of the sweep";
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    while (head.firstChild && head.firstChild.nodeName !== "SMALL") button.append(head.firstChild);
    head.prepend(button);
    const first = head.dataset.first ?? "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sort(column, now === null ? first : now === first ? other : null);
    });
  });
}
const opened = [];
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) { part.open = true; opened.push(part); }
});
addEventListener("afterprint", () => { while (opened.length) opened.pop().open = false; });
