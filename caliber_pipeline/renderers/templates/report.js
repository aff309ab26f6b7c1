// Filters the cases; without it all of them are shown.
const form = document.getElementById("filters");
const cases = Array.from(document.querySelectorAll(".case"));
const texts = cases.map((shown) => {
  const parts = Array.from(shown.querySelectorAll("code, .plain"), (part) => part.textContent);
  return parts.join("\n").toLowerCase();
});
if (form) {
  const show = () => {
    const wanted = Object.fromEntries(new FormData(form));
    const text = wanted.text.trim().toLowerCase();
    let n = 0;
    for (const [i, shown] of cases.entries()) {
      const names = ["kind", "split", "pattern", "fault"];
      const fits = names.every((name) => !wanted[name] || shown.dataset[name] === wanted[name]);
      shown.hidden = !fits || !texts[i].includes(text);
      n += shown.hidden ? 0 : 1;
    }
    form.querySelector("output").textContent = `${n} of ${cases.length}`;
  };
  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
