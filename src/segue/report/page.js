const text = { family: 'system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif', size: 12, color: "#5b6670" };
const axis = {
  gridcolor: "#eceff1", linecolor: "#c3cad1", zeroline: false, automargin: true, nticks: 6,
  ticks: "outside", ticklen: 4, tickcolor: "#c3cad1", title: { standoff: 8, font: { size: 12 } },
};
const template = { layout: {
  font: text, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
  margin: { l: 8, r: 12, t: 8, b: 8 }, hovermode: "closest",
  hoverlabel: { bgcolor: "#fff", bordercolor: "#c3cad1", font: { ...text, color: "#1d2730" } },
  xaxis: { ...axis, showgrid: false }, yaxis: axis,
} };
// A finger that drags scrolls the page; a mouse that drags zooms.
const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
for (const box of document.querySelectorAll(".chart")) {
  const figure = JSON.parse(box.dataset.figure);
  Plotly.newPlot(box, figure.data, { template, dragmode, ...figure.layout }, { responsive: true, displayModeBar: false });
}
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => {
    const block = button.parentElement.querySelector("pre");
    getSelection().selectAllChildren(block);
    const copied = navigator.clipboard ? navigator.clipboard.writeText(block.textContent) : Promise.reject();
    copied.catch(() => document.execCommand("copy")).then(() => {
      getSelection().removeAllRanges();
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  });
}
