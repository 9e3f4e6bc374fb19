// Text files that questions are asked with.

import { element } from "./answer.js";

const MOST_BYTES = 2_000_000;
const at = (id) => document.getElementById(id);
let found = [];

/** `[{name, text}]`, as the server takes them. */
export const attached = () => found;

/** Takes files from the button and from the mouse; `notice` is told what is left out. */
export function listen(notice) {
  at("attach").addEventListener("click", () => at("files").click());
  at("files").addEventListener("change", () => {
    addFiles([...at("files").files], notice);
    at("files").value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      at("form").classList.toggle("over", kind === "dragover");
      if (kind === "drop") addFiles([...event.dataTransfer.files], notice);
    });
  }
}

async function addFiles(files, notice) {
  for (const file of files) {
    const size = found.reduce((sum, each) => sum + new Blob([each.text]).size, 0);
    if (size + file.size > MOST_BYTES) {
      notice(`${file.name} is left out: documents may have ${MOST_BYTES / 1e6} MB together.`);
      continue;
    }
    const text = await file.text();
    if (text.includes("\u0000")) {
      notice(`${file.name} is left out: it is no text file.`);
      continue;
    }
    const others = found.filter((each) => each.name !== file.name);
    found = [...others, { name: file.name, text }];
  }
  drawDocuments();
}

function drawDocuments() {
  const items = found.map((document_) => {
    const item = element("li", "", document_.name);
    const drop = element("button", "", "×");
    drop.type = "button";
    drop.setAttribute("aria-label", `Remove ${document_.name}`);
    drop.addEventListener("click", () => {
      found = found.filter((each) => each !== document_);
      drawDocuments();
    });
    item.append(drop);
    return item;
  });
  at("documents").replaceChildren(...items);
}
