/// The first bytes of every page, by which one is known again.
let deepZoomPageStart = "<!DOCTYPE html>\n<!-- A viewer of the Deep Zoom pyramid beside it, made by TileFarm. -->\n"

/// The viewer of a pyramid: a page that loads nothing but tiles, as pictures, so that it works from `file://` too.
/// Hence the sizes stand in it.
///
/// `index.html#x=0.5&y=0.5&zoom=4` shows the middle at four of the screen's pixels for one of the picture's.
func deepZoomPage(width: Int, height: Int, hasAlpha: Bool) -> String {
    deepZoomPageStart + """
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>\(width) x \(height)</title>
        \(style)
        <canvas id="view" tabindex="0" role="img" aria-label="Picture of \(width) by \(height) pixels. \
        Arrow keys move, plus and minus zoom, 0 shows the whole, 1 shows it pixel by pixel, F fills the screen.">\
        </canvas>
        <canvas id="map" aria-hidden="true"></canvas>
        <div id="bar" role="toolbar" aria-label="Zoom">
        <button id="out" title="Zoom out (-)" aria-label="Zoom out">&minus;</button>
        <output id="percent" aria-label="Zoom"></output>
        <button id="in" title="Zoom in (+)" aria-label="Zoom in">+</button>
        <button id="whole" title="Whole picture (0)" aria-label="Whole picture">Fit</button>
        <button id="full" title="Fill the screen (F)" aria-label="Fill the screen">\
        <svg viewBox="0 0 16 16"><path d="M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4"/></svg></button>
        </div>
        <noscript>This page needs JavaScript. Other viewers can open picture.dzi.</noscript>
        <script>
        "use strict";
        {
        const width = \(width), height = \(height), hasAlpha = \(hasAlpha);
        const tile = \(DeepZoomWriter.tile), overlap = \(DeepZoomWriter.overlap);
        const files = "\(DeepZoomWriter.name)_files";
        \(script)
        }
        </script>
        </html>

        """
}

private let style = """
    <style>
    html, body { margin: 0; height: 100%; overflow: hidden; background: #222; }
    canvas { display: block; position: absolute; touch-action: none; }
    #view { inset: 0; width: 100%; height: 100%; cursor: grab; outline: none; }
    #view:focus-visible { outline: 2px solid #8cf; outline-offset: -2px; }
    #view.moving { cursor: grabbing; }
    #map { right: 12px; bottom: 12px; border: 1px solid #fff; box-shadow: 0 0 0 1px #000; cursor: crosshair; }
    #bar { position: absolute; left: 12px; bottom: 12px; display: flex; align-items: center; }
    #bar { border-radius: 6px; background: #000c; }
    #bar, button { color: #fff; font: 15px system-ui, sans-serif; }
    button { min-width: 36px; height: 36px; border: 0; border-radius: 6px; background: none; cursor: pointer; }
    button:hover, button:focus-visible { background: #fff3; }
    svg { width: 16px; height: 16px; vertical-align: middle; fill: none; stroke: #fff; stroke-width: 2; }
    output { min-width: 4.5em; text-align: center; }
    noscript { position: absolute; inset: 0; padding: 2em; color: #fff; }
    </style>
    """

private let script = #"""
    const $ = id => document.getElementById(id);
    const view = $("view"), map = $("map"), context = view.getContext("2d"), mapContext = map.getContext("2d");
    const top = Math.ceil(Math.log2(Math.max(width, height)));   // the level of the whole picture
    // The largest level that is a single tile: always loaded, for the map and until sharper tiles are there.
    const base = Math.min(top, Math.floor(Math.log2(tile / Math.max(width, height)) + 1e-9) + top);

    // What is shown: the picture's point (x, y) in the middle, at `zoom` of the screen's pixels for one of the
    // picture's.
    let x = width / 2, y = height / 2, zoom = 1, isFitted = true;
    const ratio = () => window.devicePixelRatio || 1;
    const fitting = () => Math.min(view.width / width, view.height / height);
    const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
    const sizeOf = (length, level) => Math.ceil(length / 2 ** (top - level));

    function settle() {
      zoom = clamp(zoom, Math.min(fitting(), 1), Math.max(fitting(), 64));
      x = clamp(x, 0, width);
      y = clamp(y, 0, height);
      redraw();
    }

    function fit() {
      [x, y, zoom, isFitted] = [width / 2, height / 2, fitting(), true];
      settle();
    }

    // Zooms so that the picture's point under (atX, atY) of the screen stays there.
    function zoomBy(factor, atX = view.width / 2, atY = view.height / 2) {
      const before = zoom;
      zoom = clamp(zoom * factor, Math.min(fitting(), 1), Math.max(fitting(), 64));
      x += (atX - view.width / 2) * (1 / before - 1 / zoom);
      y += (atY - view.height / 2) * (1 / before - 1 / zoom);
      isFitted = false;
      settle();
    }

    function moveBy(dx, dy) {
      x += dx / zoom;
      y += dy / zoom;
      isFitted = false;
      settle();
    }

    // Tiles: a bounded number, the longest unused thrown away; few asked for at a time, the nearest to the middle
    // first.
    const tiles = new Map();
    let loading = 0, wanted = [];
    // One that failed is asked for again, three times, after 2, 4 and 8 seconds.
    const isDue = entry => entry.retryAt <= performance.now();

    function load() {
      while (loading < 8 && wanted.length) {
        const name = wanted.shift(), before = tiles.get(name);
        if (before && !isDue(before)) continue;
        const image = new Image();
        const entry = { image, isReady: false, failures: before ? before.failures : 0, retryAt: Infinity };
        tiles.set(name, entry);
        loading += 1;
        const done = isReady => {
          entry.isReady = isReady;
          loading -= 1;
          load();   // at once, not with the next frame
          redraw();
        };
        image.onload = () => done(true);
        image.onerror = () => {
          entry.failures += 1;
          const pause = 1000 * 2 ** entry.failures;
          if (entry.failures < 4) {
            entry.retryAt = performance.now() + pause;
            setTimeout(redraw, pause);
          }
          done(false);
        };
        image.src = files + "/" + name + ".png";
      }
    }

    function forget(bound) {
      for (const [name, entry] of tiles) {
        if (tiles.size <= bound) return;
        if (entry.frame !== frame && entry.image.complete) tiles.delete(name);
      }
    }

    // The columns or rows of tiles of a level between two places of the picture.
    function range(level, from, to, length) {
      const scale = 2 ** (top - level), last = Math.ceil(sizeOf(length, level) / tile) - 1;
      return [clamp(Math.floor(from / scale / tile), 0, last), clamp(Math.floor(to / scale / tile), 0, last)];
    }

    let isDrawn = true, frame = 0;
    function redraw() {
      if (isDrawn) requestAnimationFrame(draw);
      isDrawn = false;
    }

    function draw() {
      isDrawn = true;
      frame += 1;
      // Where the picture's corner lies; on whole pixels of the screen where the picture's are to be seen.
      let left = view.width / 2 - x * zoom, up = view.height / 2 - y * zoom;
      if (zoom >= 1) [left, up] = [Math.round(left), Math.round(up)];
      context.fillStyle = "#222";
      context.fillRect(0, 0, view.width, view.height);
      const best = clamp(top - Math.floor(Math.log2(1 / zoom) + 1e-6), base, top);
      const missing = [];
      let visible = 0;
      for (let level = base; level <= best; level += 1) {
        const scale = 2 ** (top - level) * zoom;   // of the screen's pixels for one of the level's
        const [firstColumn, lastColumn] = range(level, -left / zoom, (view.width - left) / zoom, width);
        const [firstRow, lastRow] = range(level, -up / zoom, (view.height - up) / zoom, height);
        for (let row = firstRow; row <= lastRow; row += 1) {
          for (let column = firstColumn; column <= lastColumn; column += 1) {
            const name = `${level}/${column}_${row}`, entry = tiles.get(name);
            // Its part without overlap, with edges on whole pixels that it shares with its neighbours: no seams.
            const edge = (origin, index, end, length) =>
              Math.round(origin + Math.min(index * tile * 2 ** (top - level), end) * zoom);
            const [x0, x1] = [edge(left, column, width), edge(left, column + 1, width)];
            const [y0, y1] = [edge(up, row, height), edge(up, row + 1, height)];
            visible += 1;
            if (!entry || isDue(entry)) {
              if (level === best || level === base) {
                const distance = Math.hypot((x0 + x1 - view.width) / 2, (y0 + y1 - view.height) / 2);
                missing.push([level === base ? -1 : distance, name]);
              }
              continue;
            }
            tiles.delete(name);   // to the end of the order
            tiles.set(name, entry);
            entry.frame = frame;
            if (entry.isReady) paint(entry.image, column, row, scale, left, up, x0, y0, x1 - x0, y1 - y0);
          }
        }
      }
      wanted = missing.sort((a, b) => a[0] - b[0]).map(item => item[1]);
      forget(Math.max(256, 2 * visible));
      load();
      drawMap(left, up);
      $("percent").value = (zoom >= 0.0995 ? Math.round(zoom * 100) : (zoom * 100).toPrecision(2)) + " %";
      // For tests and the curious: whether all that should be seen is.
      document.documentElement.dataset.ready = loading === 0 && wanted.length === 0;
    }

    // Draws a tile with its overlap, which smoothing at its edges needs, and cuts the overlap off.
    function paint(image, column, row, scale, left, up, x0, y0, w, h) {
      if (w <= 0 || h <= 0) return;
      context.save();
      context.beginPath();
      context.rect(x0, y0, w, h);
      context.clip();
      if (hasAlpha) {
        // What is under it is less sharp.
        context.fillStyle = "#222";
        context.fillRect(x0, y0, w, h);
      }
      context.imageSmoothingEnabled = scale < 1 || zoom < 1;
      context.imageSmoothingQuality = "high";
      const [atX, atY] = [column * tile - (column ? overlap : 0), row * tile - (row ? overlap : 0)];
      const [imageWidth, imageHeight] = [image.naturalWidth * scale, image.naturalHeight * scale];
      context.drawImage(image, left + atX * scale, up + atY * scale, imageWidth, imageHeight);
      context.restore();
    }

    function drawMap(left, up) {
      const entry = tiles.get(`${base}/0_0`), inside = zoom <= fitting() * 1.01;
      map.style.display = inside || !entry || !entry.isReady ? "none" : "block";
      if (map.style.display === "none") return;
      const scale = Math.min(160 / width, 160 / height);
      [map.width, map.height] = [Math.max(1, width * scale * ratio()), Math.max(1, height * scale * ratio())];
      map.style.width = map.width / ratio() + "px";
      map.style.height = map.height / ratio() + "px";
      mapContext.fillStyle = "#222";
      mapContext.fillRect(0, 0, map.width, map.height);
      mapContext.drawImage(entry.image, 0, 0, map.width, map.height);
      const step = scale * ratio() / zoom;
      mapContext.strokeStyle = "#f33";
      mapContext.lineWidth = 2;
      mapContext.strokeRect(-left * step, -up * step, Math.max(4, view.width * step), Math.max(4, view.height * step));
    }

    // The pointer: one moves, two zoom.
    const pointers = new Map();
    const place = event => [event.clientX * ratio(), event.clientY * ratio()];
    view.addEventListener("pointerdown", event => {
      if (event.button) return;
      view.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, place(event));
      view.classList.add("moving");
    });
    view.addEventListener("pointermove", event => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const now = place(event), other = [...pointers].find(([id]) => id !== event.pointerId);
      pointers.set(event.pointerId, now);
      const part = other ? 2 : 1;   // two fingers both move the middle between them
      moveBy((before[0] - now[0]) / part, (before[1] - now[1]) / part);
      if (!other) return;
      const length = point => Math.max(1, Math.hypot(point[0] - other[1][0], point[1] - other[1][1]));
      zoomBy(length(now) / length(before), (now[0] + other[1][0]) / 2, (now[1] + other[1][1]) / 2);
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      view.addEventListener(name, event => {
        pointers.delete(event.pointerId);
        if (!pointers.size) view.classList.remove("moving");
      });
    }
    view.addEventListener("wheel", event => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 33 : event.deltaMode === 2 ? 400 : 1;
      const pinch = event.ctrlKey ? 10 : 1;   // what a touchpad's two fingers come as, in small steps
      zoomBy(2 ** clamp(-event.deltaY * lines * pinch / 200, -2, 2), ...place(event));
    }, { passive: false });
    view.addEventListener("dblclick", event => zoomBy(event.shiftKey ? 1 / 2 : 2, ...place(event)));

    function center(event) {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = map.getBoundingClientRect();
      [x, y] = [(event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height];
      settle();
    }
    map.addEventListener("pointerdown", event => {
      if (event.button) return;
      map.setPointerCapture(event.pointerId);
      center(event);
    });
    map.addEventListener("pointermove", center);

    function fill() {
      if (document.fullscreenElement) document.exitFullscreen();
      else if (document.documentElement.requestFullscreen) document.documentElement.requestFullscreen();
    }
    const step = () => Math.min(view.width, view.height) / 8;
    const keys = {
      "+": () => zoomBy(Math.SQRT2), "=": () => zoomBy(Math.SQRT2), "-": () => zoomBy(Math.SQRT1_2),
      "0": fit, "1": () => zoomBy(1 / zoom), f: fill,
      ArrowLeft: () => moveBy(-step(), 0), ArrowRight: () => moveBy(step(), 0),
      ArrowUp: () => moveBy(0, -step()), ArrowDown: () => moveBy(0, step()),
    };
    addEventListener("keydown", event => {
      const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act();
    });
    $("in").onclick = keys["+"];
    $("out").onclick = keys["-"];
    $("whole").onclick = fit;
    $("full").onclick = fill;

    // The place shown is kept in the address, to be passed on.
    function open() {
      const parts = new URLSearchParams(location.hash.slice(1));
      const number = name => parts.get(name) === null ? NaN : Number(parts.get(name));
      if (![number("x"), number("y"), number("zoom")].every(Number.isFinite)) return fit();
      [x, y, zoom, isFitted] = [number("x") * width, number("y") * height, number("zoom"), false];
      settle();
    }
    setInterval(() => {
      const place = () => `#x=${(x / width).toFixed(6)}&y=${(y / height).toFixed(6)}`;
      const hash = isFitted ? "" : `${place()}&zoom=${Number(zoom.toPrecision(6))}`;
      if (hash === location.hash || pointers.size) return;
      try {
        history.replaceState(null, "", hash || location.pathname + location.search);
      } catch { /* some browsers do not allow it for files */ }
    }, 500);
    addEventListener("hashchange", open);

    function resize() {
      const [w, h] = [Math.round(innerWidth * ratio()), Math.round(innerHeight * ratio())];
      if (w === view.width && h === view.height) return;
      [view.width, view.height] = [w, h];
      if (isFitted) fit();
      else settle();
    }
    addEventListener("resize", resize);
    [view.width, view.height] = [Math.round(innerWidth * ratio()), Math.round(innerHeight * ratio())];
    open();
    """#
