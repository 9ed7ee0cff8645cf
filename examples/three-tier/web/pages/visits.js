const answer = await (await fetch("/api/visits", { method: "POST" })).json();
document.getElementById("visits").textContent = answer.visits;
