// The results tables: sort, search, copy and download. Without scripts they stay plain tables.
// itables' own code comes as text from a file beside this one, so a page opened from a disk works
// as well as one from a server, and nothing is fetched from elsewhere.
(async () => {
  const tables = document.querySelectorAll(".results-table table");
  if (!tables.length || !window.itablesFiles) return;
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
  const settings = {
    order: [],
    pageLength: 25,
    autoWidth: false,
    language: { search: "", searchPlaceholder: "search" },
    layout: { topStart: "buttons", topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
    buttons: [
      { extend: "copyHtml5", text: "copy", title: null },
      { extend: "csvHtml5", text: "CSV", filename: "nblib_results" },
      { extend: "excelHtml5", text: "Excel", filename: "nblib_results", title: null },
    ],
  };
  for (const table of tables) new ITable(table, settings);
})();
