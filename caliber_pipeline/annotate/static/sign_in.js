import { byId } from "./dom.js";
import { post } from "./server.js";

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("problem").textContent = "";
  try {
    await post("/session", { annotator: byId("annotator").value, token: byId("token")?.value ?? "" });
    location.assign("/");
  } catch (error) {
    byId("problem").textContent = error.message;
  }
});
