// Elements. Whatever comes from outside is text: nothing here takes markup.

/** An element with attributes (`on` holds listeners, `class` and the rest are as in HTML) and children, texts among them. */
export function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (value === true) {
      node.setAttribute(name, "");
    } else if (value !== false && value != null) {
      node.setAttribute(name, String(value));
    }
  }
  node.append(...children.flat().filter((child) => child != null && child !== false).map((child) =>
    child instanceof Node ? child : document.createTextNode(String(child))));
  return node;
}

/** Sets a node's text, where it is another. */
export function say(node, text) {
  if (node.textContent !== String(text)) node.textContent = String(text);
}

/** Sets or takes away an attribute, where that changes something. */
export function put(node, name, value) {
  if (value === false || value == null) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== (value === true ? "" : String(value))) {
    node.setAttribute(name, value === true ? "" : String(value));
  }
}

/** Replaces what is in a node, unless it was made of the same. */
export function fill(node, same, make) {
  const key = JSON.stringify(same);
  if (node.madeOf === key) return;
  node.madeOf = key;
  node.replaceChildren(...[make()].flat().filter(Boolean));
}

/** Makes the children those of `items`, in this order; the nodes of those that stay are kept, and so is the focus. */
export function keyed(parent, items, keyOf, create, update) {
  const before = parent.byKey ?? new Map();
  const now = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    const node = before.get(key) ?? create(item);
    before.delete(key);
    now.set(key, node);
    update(node, item);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  for (const node of before.values()) node.remove();
  parent.byKey = now;
}

/** A row whose cells have these classes, and how to say what is in them. */
export function row(classes, head) {
  const cells = classes.map((name, place) => h(place === head ? "th" : "td", { class: name, scope: place === head && "row" }));
  const node = h("tr", {}, cells);
  node.cells_ = cells;
  return node;
}

/** A table with these columns (`[class, title, what it means]`) and an empty body. */
export function table(caption, columns) {
  const body = h("tbody");
  const head = columns.map(([name, title, meaning]) => h("th", { class: name, scope: "col", title: meaning }, title));
  const node = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "hidden" }, caption), h("thead", {}, h("tr", {}, head)), body));
  return { node, body, classes: columns.map(([name]) => name) };
}

/** Asks before something is done. `run(reason)` does it, and throws where it was refused. */
export function ask({ title, lines, verb, danger, run, renew }) {
  const back = document.activeElement;
  const reason = h("input", { id: "reason", maxlength: "500", autocomplete: "off" });
  const error = h("p", { class: "error", role: "alert" });
  const body = h("div", { class: "lines" }, lines);
  const yes = h("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
  const no = h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel");
  const form = h("form", {}, h("h2", {}, title), body,
    h("label", { class: "stack" }, "Reason, for the history", reason), error, h("div", { class: "buttons" }, no, yes));
  const dialog = h("dialog", { class: "ask", "aria-label": title }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    yes.disabled = true;
    say(error, "");
    try {
      await run(reason.value.trim());
      dialog.close();
    } catch (refused) {
      say(error, refused.message);
      if (refused.status === 412 && renew) {
        yes.remove();
        form.querySelector(".buttons").append(
          h("button", { type: "button", class: "primary", on: { click: () => { dialog.close(); renew(); } } }, "Show what is in force"));
      }
    }
    yes.disabled = false;
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    back?.focus?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  reason.focus();
  return dialog;
}
