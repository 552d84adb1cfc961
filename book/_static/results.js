// The results table: sorts, searches, copies and downloads. Without scripts it stays a plain table.
// itables' own code comes as text from a file beside this one, so a page opened from a disk works
// as well as one from a server, and nothing is fetched from elsewhere.
(async () => {
  const table = document.getElementById("all-runs");
  if (!table || !window.itablesFiles) return;
  const text = (packed) =>
    new TextDecoder().decode(Uint8Array.from(atob(packed), (c) => c.charCodeAt(0)));
  const style = document.createElement("style");
  style.textContent = text(window.itablesFiles.style);
  document.head.prepend(style); // before the book's own style, which adjusts it
  const code = new Blob([text(window.itablesFiles.code)], { type: "application/javascript" });
  const address = URL.createObjectURL(code);
  const { ITable } = await import(address);
  URL.revokeObjectURL(address);
  const root = document.documentElement;
  const follow = () => root.classList.toggle("dark", root.dataset.theme === "dark");
  new MutationObserver(follow).observe(root, { attributeFilter: ["data-theme"] });
  follow();
  new ITable(table, {
    order: [],
    pageLength: 25,
    scrollX: true,
    language: { search: "", searchPlaceholder: "search", buttons: { colvis: "columns" } },
    layout: { topStart: "buttons", topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
    buttons: [
      { extend: "copyHtml5", text: "copy", title: null },
      { extend: "csvHtml5", text: "CSV", filename: "nblib_results" },
      { extend: "excelHtml5", text: "Excel", filename: "nblib_results", title: null },
      "colvis",
    ],
  });
})();
