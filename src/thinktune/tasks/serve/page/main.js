// The chat page: wires the form, the conversations and the server together.

import { AnswerView, element } from "./answer.js";
import { answer, ApiError, models, ready, setKey } from "./api.js";
import * as conversations from "./conversations.js";
import * as documents from "./documents.js";

const at = (id) => document.getElementById(id);
const state = {
  models: {}, // arm → model
  all: conversations.load(),
  now: conversations.begin(),
  running: null,
};

// ---- the server ---------------------------------------------------------------------------------

async function connect() {
  try {
    const found = await models();
    for (const model of found) state.models[model.thinktune?.arm ?? "tuned"] ??= model;
    const tuned = state.models.tuned ?? found[0];
    at("model").textContent = tuned.id;
    document.title = `${tuned.id} · thinktune`;
    const base = tuned.thinktune?.base_model;
    at("about").textContent = base ? `tuned from ${base}` : "";
    at("server-documents-label").hidden = !tuned.thinktune?.documents;
    at("side-by-side").disabled = !state.models.base;
    notice("");
    await loaded();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return askForKey();
    notice(`The server does not answer: ${error.message}`);
    setTimeout(connect, 5000);
  }
}

async function loaded() {
  while (!(await ready())) {
    notice("The model is being loaded, or does not answer at the moment.");
    await new Promise((done) => setTimeout(done, 2000));
  }
  notice("");
}

function askForKey() {
  const dialog = at("key-dialog");
  if (!dialog.open) dialog.showModal();
}

at("key-form").addEventListener("submit", () => {
  setKey(at("key").value.trim());
  at("key").value = "";
  connect();
});

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

// ---- questions and answers ----------------------------------------------------------------------

const label = (arm) => (arm === "base" ? "Base model" : (state.models.tuned?.id ?? "Tuned model"));

function drawQuestion(turn) {
  const box = element("div", "user", turn.question);
  if (turn.documents?.length) box.append(element("small", "", `with ${turn.documents.join(", ")}`));
  at("log").append(box);
}

function drawAnswers(arms) {
  const row = element("div", arms.length > 1 ? "answers two" : "answers");
  const marker = state.models.tuned?.thinktune?.final_answer;
  const views = arms.map((arm) => new AnswerView(label(arm), marker));
  row.append(...views.map((view) => view.root));
  at("log").append(row);
  return views;
}

function redraw() {
  at("log").replaceChildren();
  for (const turn of state.now.turns) {
    drawQuestion(turn);
    const arms = Object.keys(turn.answers);
    drawAnswers(arms).forEach((view, n) => {
      const said = turn.answers[arms[n]];
      view.said = { reasoning: String(said.reasoning ?? ""), content: String(said.content ?? "") };
      view.end(said.facts ?? { reasoning_tokens: said.tokens, final_answer: null }, said.reason);
    });
  }
  at("welcome").hidden = state.now.turns.length > 0;
  layout();
}

function layout() {
  const two = at("side-by-side").checked || at("log").querySelector(".two");
  document.querySelector("main").classList.toggle("wide", Boolean(two));
}

function body(conversation, arm, question) {
  return {
    model: state.models[arm].id,
    messages: conversations.messages(conversation, arm, question),
    ...(at("think").checked ? {} : { thinking: false }),
    ...(documents.attached().length ? { documents: documents.attached() } : {}),
    ...(!at("server-documents-label").hidden && at("server-documents").checked
      ? { use_server_documents: true }
      : {}),
  };
}

async function askOne(conversation, arm, question, view, signal) {
  const said = { reasoning: "", content: "", tokens: undefined, facts: undefined, reason: undefined };
  view.begin();
  try {
    for await (const event of answer(body(conversation, arm, question), signal)) {
      for (const choice of event.choices) {
        view.add(choice.delta);
        said.reason = choice.finish_reason ?? said.reason;
        follow();
      }
      said.facts = event.thinktune ?? said.facts;
    }
    view.end(said.facts, said.reason);
  } catch (error) {
    if (signal.aborted) {
      said.reason = "stopped";
      view.end(undefined, "stopped");
    } else {
      view.fail(error.message);
      if (error.status === 401) askForKey();
    }
  }
  said.tokens = said.facts?.reasoning_tokens;
  return { ...said, ...view.said };
}

async function ask(question) {
  const conversation = state.now; // another one may be open once the answer ends
  const arms = at("side-by-side").checked && state.models.base ? ["base", "tuned"] : ["tuned"];
  const turn = { question, documents: documents.attached().map((each) => each.name), answers: {} };
  at("welcome").hidden = true;
  drawQuestion(turn);
  const views = drawAnswers(arms);
  layout();
  scroll();
  const stopping = new AbortController();
  run(stopping);
  at("status").textContent = "The model is thinking.";
  const said = await Promise.all(
    arms.map((arm, n) => askOne(conversation, arm, question, views[n], stopping.signal)),
  );
  arms.forEach((arm, n) => (turn.answers[arm] = said[n]));
  if (state.running === stopping) run(null);
  if (said.some((each) => each.content || each.reasoning)) keep(conversation, turn);
  else if (state.now === conversation) at("question").value ||= question;
  if (state.now !== conversation) return;
  const last = said.at(-1);
  at("status").textContent = last.facts?.final_answer
    ? `Answered. Final answer: ${last.facts.final_answer}`
    : last.content ? `Answered: ${last.content.slice(0, 300)}` : "No answer.";
}

function run(stopping) {
  state.running = stopping;
  at("send").hidden = Boolean(stopping);
  at("stop").hidden = !stopping;
}

const main = document.querySelector("main");
let follows = true;
main.addEventListener("scroll", () => {
  follows = main.scrollHeight - main.scrollTop - main.clientHeight < 80;
});
const scroll = () => main.scrollTo({ top: main.scrollHeight, behavior: "instant" });
const follow = () => follows && requestAnimationFrame(scroll);

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (!question || state.running || !state.models.tuned) return;
  at("question").value = "";
  follows = true;
  ask(question);
});
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("form").requestSubmit();
  }
});
at("stop").addEventListener("click", () => state.running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !at("key-dialog").open) {
    if (state.running) state.running.abort();
    else showHistory(false);
  }
});
at("side-by-side").addEventListener("change", layout);

// ---- conversations ------------------------------------------------------------------------------

function keep(conversation, turn) {
  const known = state.all.some((each) => each.id === conversation.id);
  if (conversation.turns.length && !known) return; // it was deleted meanwhile
  conversation.turns.push(turn);
  conversation.title ||= turn.question.slice(0, 80);
  state.all = [conversation, ...state.all.filter((each) => each.id !== conversation.id)];
  conversations.save(state.all);
  drawHistory();
}

function drawHistory() {
  const items = state.all.map((each) => {
    const item = element("li");
    const pick = element("button", "pick", String(each.title || "Conversation"));
    pick.setAttribute("aria-current", String(each.id === state.now.id));
    pick.addEventListener("click", () => open(each));
    const drop = element("button", "drop", "×");
    drop.setAttribute("aria-label", `Delete ${each.title}`);
    drop.addEventListener("click", () => {
      state.all = state.all.filter((other) => other !== each);
      conversations.save(state.all);
      if (each.id === state.now.id) open(conversations.begin());
      drawHistory();
    });
    item.append(pick, drop);
    return item;
  });
  at("conversations").replaceChildren(...items);
  const empty = !state.now.turns.length;
  at("export-markdown").disabled = at("export-json").disabled = empty;
}

function open(conversation) {
  state.running?.abort();
  state.now = conversation;
  redraw();
  drawHistory();
  if (matchMedia("(max-width: 700px)").matches) showHistory(false);
  scroll();
  at("question").focus();
}

function showHistory(shown) {
  at("history").classList.toggle("open", shown);
  at("open-history").setAttribute("aria-expanded", String(shown));
}

at("open-history").addEventListener("click", () =>
  showHistory(!at("history").classList.contains("open")),
);
at("new").addEventListener("click", () => open(conversations.begin()));
at("export-markdown").addEventListener("click", () => {
  const names = { tuned: label("tuned"), base: label("base") };
  const text = conversations.asMarkdown(state.now, names);
  conversations.download("conversation.md", text, "text/markdown");
});
at("export-json").addEventListener("click", () => {
  const text = JSON.stringify(state.now, null, 1);
  conversations.download("conversation.json", text, "application/json");
});

documents.listen(notice);
redraw();
drawHistory();
connect();
