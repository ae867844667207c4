/* The question bank in the browser: filters of the table, cards to practice with, and
   what was read and known. Everything stays in this browser; pages work without it. */
{
  const STORE = "attention-guide";
  const zh = document.documentElement.lang.startsWith("zh");
  const say = (chinese, english) => (zh ? chinese : english);

  /* {id of a question: {read: date, knew: boolean, at: date}} */
  const load = () => {
    try {
      return valid(JSON.parse(localStorage.getItem(STORE))) || {};
    } catch {
      return {}; /* storage is switched off, or holds something else */
    }
  };
  const save = (all) => {
    try {
      localStorage.setItem(STORE, JSON.stringify(all));
    } catch {
      /* nothing is kept, and nothing breaks */
    }
  };
  const valid = (all) =>
    all && typeof all === "object" && !Array.isArray(all) &&
    Object.values(all).every((one) => one && typeof one === "object") ? all : null;
  const note = (id, what) => {
    const all = load();
    all[id] = { ...all[id], ...what };
    save(all);
  };
  const now = () => new Date().toISOString();

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  };
  const choice = (label, options, change) => {
    const select = element("select", { onchange: change });
    for (const [value, text] of options) select.append(element("option", { value }, text));
    return [element("label", {}, label, select), select];
  };

  /* A question page has been opened: it counts as read. */
  const asked = document.querySelector("meta[name='guide-question']");
  if (asked) note(asked.content, { read: now() });

  const table = document.querySelector("#all-questions tbody");
  if (table) {
    const rows = [...table.rows];
    const distinct = (cell, key) => {
      const found = new Map();
      for (const row of rows) {
        const names = row.cells[cell].textContent.split(" · ");
        const keys = row.dataset[key].split(" ");
        keys.forEach((one, index) => one && found.set(one, names[index]));
      }
      return [...found];
    };
    const all = [["", say("全部", "all")]];
    const filters = [
      ["theme", say("主题", "Theme"), distinct(1, "theme")],
      ["level", say("级别", "Level"), distinct(2, "level")],
      ["tags", say("标签", "Tag"), distinct(3, "tags")],
      ["read", say("读过", "Read"), [["yes", say("读过", "read")], ["no", say("没读过", "not read")]]],
    ];
    const count = element("p", { role: "status" });
    const selects = {};
    const filter = () => {
      const known = load();
      let shown = 0;
      for (const row of rows) {
        const about = { ...row.dataset, read: known[row.dataset.id]?.read ? "yes" : "no" };
        const kept = Object.entries(selects).every(
          ([key, select]) => !select.value || about[key].split(" ").includes(select.value),
        );
        row.hidden = !kept;
        row.classList.toggle("g-read", about.read === "yes");
        shown += kept;
      }
      count.textContent = say(`显示 ${shown} 题`, `${shown} questions shown`);
    };
    const bar = element("form", { class: "g-filter", onsubmit: (event) => event.preventDefault() });
    for (const [key, label, options] of filters) {
      const [made, select] = choice(label, [...all, ...options], filter);
      selects[key] = select;
      bar.append(made);
    }
    document.getElementById("all-questions").before(bar, count);
    filter();
  }

  const deck = document.getElementById("cards");
  if (deck) {
    const cards = [...deck.querySelectorAll("details")];
    const headings = [...deck.querySelectorAll("h2")];
    const status = element("p", { role: "status" });
    let theme, which;
    const waiting = () => cards.filter((card) => !card.hidden);
    const show = () => {
      const all = load();
      const here = cards.filter((card) => !theme.value || card.dataset.theme === theme.value);
      const knew = here.filter((card) => all[card.dataset.id]?.knew).length;
      for (const card of cards) {
        const { knew } = all[card.dataset.id] || {};
        card.hidden =
          !here.includes(card) || (which.value === "left" && knew === true) ||
          (which.value === "missed" && knew !== false);
        card.dataset.knew = knew === undefined ? "" : knew;
      }
      for (const heading of headings) {
        heading.hidden = !waiting().some((card) => card.dataset.theme === heading.id);
      }
      status.textContent = say(
        `会了 ${knew} / ${here.length}，还要练 ${waiting().length} 张`,
        `${knew} of ${here.length} known, ${waiting().length} cards shown`,
      );
    };
    const answer = (card, knew) => () => {
      const next = cards.slice(cards.indexOf(card) + 1).find((one) => !one.hidden);
      note(card.dataset.id, { knew, at: now() });
      card.open = false;
      show();
      (next || card).querySelector("summary").focus();
    };
    for (const card of cards) {
      card.lastElementChild.append(
        element("p", { class: "g-actions" },
          element("button", { type: "button", onclick: answer(card, true) }, say("会了", "Knew it")),
          element("button", { type: "button", onclick: answer(card, false) }, say("没会", "Did not")),
        ),
      );
    }
    const one = (label, options) => choice(label, options, show);
    const [themes, themeSelect] = one(say("主题", "Theme"), [
      ["", say("全部", "all")],
      ...headings.map((heading) => [heading.id, heading.textContent]),
    ]);
    const [kinds, kindSelect] = one(say("显示", "Show"), [
      ["all", say("全部", "all")],
      ["left", say("还没会的", "not yet known")],
      ["missed", say("答过没会的", "answered wrong")],
    ]);
    [theme, which] = [themeSelect, kindSelect];
    const give = () => {
      const file = new Blob([JSON.stringify(load(), null, 1)], { type: "application/json" });
      const link = element("a", { href: URL.createObjectURL(file), download: "attention-guide-progress.json" });
      link.click();
      URL.revokeObjectURL(link.href);
    };
    const file = element("input", {
      type: "file", accept: "application/json,.json",
      onchange: async () => {
        let got = null;
        try {
          got = valid(JSON.parse(await file.files[0].text()));
        } catch {
          /* told below */
        }
        if (got) save({ ...load(), ...got });
        show();
        if (!got) status.textContent = say("这个文件不是导出的进度，什么都没有改。", "This file is no exported progress; nothing was changed.");
        file.value = "";
      },
    });
    const clear = () => {
      if (confirm(say("清除这个浏览器里的全部进度？", "Clear all progress in this browser?"))) {
        save({});
        show();
      }
    };
    const button = (text, click) => element("button", { type: "button", onclick: click }, text);
    deck.before(
      element("form", { class: "g-filter", onsubmit: (event) => event.preventDefault() }, themes, kinds),
      status,
      element("p", { class: "g-actions" },
        button(say("导出进度", "Export progress"), give),
        element("label", { class: "g-file" }, say("导入进度", "Import progress"), file),
        button(say("清除进度", "Clear progress"), clear),
      ),
    );
    show();
  }
}
