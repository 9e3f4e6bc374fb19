// Shows samples. What rows and models say is set as text, never as markup.
"use strict";
(async () => {
  const PAGE = 20;
  const byId = (id) => document.getElementById(id);
  const packed = Uint8Array.from(atob(byId("data").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { arms, labels, questions } = await new Response(stream).json();
  const base = 0, tuned = arms.indexOf("tuned");

  const make = (name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const share = (question, arm) => {
    const verdicts = question.said[arm].map((answer) => answer.correct);
    return verdicts.includes(null) ? null : verdicts.filter(Boolean).length / verdicts.length;
  };
  questions.forEach((question) => {
    question.scores = arms.map((_, arm) => share(question, arm));
    question.cut = question.said.some((draws) => draws.some((answer) => !answer.finished));
    question.apart = Math.abs((question.scores[tuned] ?? 0) - (question.scores[base] ?? 0));
    question.text = [question.question, question.reference ?? "",
      ...question.said.flat().map((answer) => answer.answer)].join("\n").toLowerCase();
  });
  const passes = (question, arm) => question.scores[arm] !== null && question.scores[arm] > 0.5;
  const measured = (question) => question.scores[base] !== null && question.scores[tuned] !== null;
  const filters = {
    all: () => true,
    fixed: (q) => measured(q) && !passes(q, base) && passes(q, tuned),
    broken: (q) => measured(q) && passes(q, base) && !passes(q, tuned),
    right: (q) => measured(q) && passes(q, base) && passes(q, tuned),
    wrong: (q) => measured(q) && !passes(q, base) && !passes(q, tuned),
    cut: (q) => q.cut,
  };
  const order = questions.map((_, n) => n).sort((a, b) => questions[b].apart - questions[a].apart || a - b);
  let filter = "all", found = [], shown = 0;

  const tags = (answer) => {
    const row = make("div");
    const tag = (text, kind) => row.append(make("span", `tag ${kind ?? ""}`, text));
    if (answer.correct === true) tag("correct", "good");
    if (answer.correct === false) tag("wrong", "bad");
    if (!answer.closed) tag("thinking never ends", "bad");
    if (!answer.finished) tag("cut off at the limit");
    if (answer.line === false) tag("no final-answer line");
    if (answer.rating != null) tag(`rated ${answer.rating}`);
    return row;
  };
  const draw = (answer, number, of) => {
    const box = make("div", "draws");
    const head = tags(answer);
    if (of > 1) head.prepend(make("span", "tag", `answer ${number + 1} of ${of}`));
    box.append(head);
    if (answer.extracted !== null) box.append(make("p", "extracted", `compared: ${answer.extracted}`));
    const details = make("details");
    const words = answer.opened ? `Thinking · ${answer.thinkingTokens} tokens` : `No think part · ${answer.tokens} tokens`;
    details.append(make("summary", "", words), make("div", "text", answer.thinking || "(empty)"));
    if (answer.opened) box.append(details);
    box.append(answer.answer ? make("div", "text", answer.answer) : make("div", "text none", "No answer."));
    return box;
  };
  const article = (question) => {
    const whole = make("article");
    whole.id = `q=${encodeURIComponent(question.id)}`;
    whole.tabIndex = -1;
    const title = make("h3");
    const link = make("a", "", question.id);
    link.href = `#${whole.id}`;
    title.append(link);
    if (question.group !== null) title.append(` · ${question.group}`);
    whole.append(title, make("p", "question", question.question));
    if (question.reference) whole.append(make("p", "reference", `Reference: ${question.reference}`));
    const pair = make("div", "pair");
    arms.forEach((_, arm) => {
      const said = make("div", `said arm${(arm % 8) + 1}`);
      said.append(make("h3", "", labels[arm]));
      question.said[arm].forEach((answer, n) => said.append(draw(answer, n, question.said[arm].length)));
      pair.append(said);
    });
    whole.append(pair);
    return whole;
  };
  const more = () => {
    const next = found.slice(shown, shown + PAGE);
    byId("samples").append(...next.map((n) => article(questions[n])));
    shown += next.length;
    byId("more").hidden = shown >= found.length;
    byId("found").textContent = `${found.length} of ${questions.length} questions, those on which base and tuned differ first`;
  };
  const select = () => {
    const wanted = byId("search").value.trim().toLowerCase();
    found = order.filter((n) => filters[filter](questions[n]) && questions[n].text.includes(wanted));
    byId("samples").replaceChildren();
    shown = 0;
    more();
  };
  const jump = () => {
    let id;
    try {
      id = decodeURIComponent(location.hash.replace(/^#q=/, ""));
    } catch {
      return;
    }
    const number = questions.findIndex((question) => question.id === id);
    if (!location.hash.startsWith("#q=") || number < 0) return;
    if (!document.getElementById(location.hash.slice(1))) {
      found = [number, ...found.filter((n) => n !== number)];
      byId("samples").replaceChildren();
      shown = 0;
      more();
    }
    const there = document.getElementById(location.hash.slice(1));
    there?.scrollIntoView();
    there?.focus();
  };
  document.querySelectorAll("#browser button[data-filter]").forEach((button) => {
    const count = questions.filter(filters[button.dataset.filter]).length;
    button.textContent += ` ${count}`;
    button.addEventListener("click", () => {
      filter = button.dataset.filter;
      document.querySelectorAll("#browser button[data-filter]").forEach((other) =>
        other.setAttribute("aria-pressed", String(other === button)));
      select();
    });
  });
  let waiting;
  byId("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(select, 120); });
  byId("more").addEventListener("click", more);
  addEventListener("hashchange", jump);
  addEventListener("keydown", (event) => {
    if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = [...document.querySelectorAll("#samples article")];
    const at = all.indexOf(document.activeElement.closest("article"));
    if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
    if (event.key === "j") (all[at + 1] ?? all[0])?.focus();
    if (event.key === "k") (all[Math.max(0, at - 1)])?.focus();
  });
  byId("browser").hidden = false;
  select();
  jump();
  document.documentElement.dataset.readyAfterMs = String(Math.round(performance.now()));
})();
