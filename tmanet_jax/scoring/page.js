"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  for (const [column, head] of heads.entries()) {
    if (!head.textContent) continue;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") !== "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const value = row => {
        const text = row.cells[column].textContent;
        return text === "-" ? -1 : Number.isNaN(Number(text)) ? text : Number(text);
      };
      const rows = [...table.tBodies[0].rows].sort((a, b) =>
        (value(a) > value(b) ? 1 : value(a) < value(b) ? -1 : 0) * (falls ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  }
}
