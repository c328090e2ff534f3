import Engine
import Foundation
import Testing

/// The page of a pyramid, in a browser where there is one.
extension DeepZoomTests {
    private static let browser = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .first { FileManager.default.isExecutableFile(atPath: $0) }

    /// The screen of a browser with a pyramid's page in a window of `width` x `height`, at `ratio` of the screen's
    /// pixels for one of the page's.
    private func screenshot(_ directory: String, _ hash: String, width: Int, height: Int, ratio: Int = 1) throws
        -> RGBImage
    {
        let picture = "\(scratch)/screen.png"
        try? FileManager.default.removeItem(atPath: picture)
        let process = Process()
        process.executableURL = URL(filePath: Self.browser ?? "")
        process.arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--user-data-dir=\(scratch)/profile",
            "--force-device-scale-factor=\(ratio)", "--window-size=\(width),\(height)", "--virtual-time-budget=60000",
            "--screenshot=\(picture)",
            "file://\(directory)/index.html\(hash)",
        ]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        return try RGBImage(png: picture)
    }

    /// The page at a place in the picture shows its pixels. On a busy machine the browser may take its picture before
    /// the tiles are there: that is tried again.
    private func expect(
        _ page: String, _ hash: String, width: Int, height: Int, ratio: Int = 1, shows picture: PyramidSamples,
        center: (x: Double, y: Double), zoom: Double
    ) throws {
        var largest = Int.max
        for _ in 0..<5 where largest > 1 {
            largest = difference(
                try screenshot(page, hash, width: width, height: height, ratio: ratio), picture, center: center,
                zoom: zoom)
        }
        #expect(largest <= 1, "\(hash)")
    }

    @Test(
        "a browser shows the picture from file://, whole and near",
        .enabled(if: browser != nil, "no Chromium or Chrome is installed"))
    func viewer() throws {
        let format = PixelFormat(grey: false, alpha: false, bitDepth: 8)
        let picture = PyramidSamples(width: 1200, height: 900, format: format, seed: 4)
        let directory = "\(scratch)/a picture #1"
        try picture.writePyramid(to: directory)
        let page = "\(scratch)/a%20picture%20%231"

        // At four of the screen's pixels for one of the picture's, squares with hard edges, also where four tiles meet.
        for (x, y) in [(600, 450), (508, 508)] {
            try expect(
                page, "#x=\(Double(x) / 1200)&y=\(Double(y) / 900)&zoom=4", width: 640, height: 640, shows: picture,
                center: (Double(x), Double(y)), zoom: 4)
        }
        // Pixel by pixel: four tiles and the seams between them.
        try expect(page, "#x=0.5&y=0.5&zoom=1", width: 640, height: 640, shows: picture, center: (600, 450), zoom: 1)
        // On a screen of twice the density.
        try expect(
            page, "#x=0.5&y=0.5&zoom=2", width: 320, height: 320, ratio: 2, shows: picture, center: (600, 450), zoom: 2)
        // Half the size: the level below.
        try expect(
            page, "#x=0.5&y=0.5&zoom=0.5", width: 500, height: 400, shows: picture.half, center: (300, 225), zoom: 1)
        // Without a place in the address, the whole: its means are those of the picture.
        let whole = try screenshot(page, "", width: 150, height: 150)
        let eighth = picture.half.half.half
        for c in 0..<3 {
            var (shown, expected) = (0.0, 0.0)
            for y in 20..<90 {  // above the buttons; the picture is in rows 19 to 131
                for x in 0..<150 {
                    shown += Double(whole.pixels[(y * 150 + x) * 3 + c])
                    expected += Double(eighth[x, y - 19, c]) / 255
                }
            }
            #expect(abs(shown / expected - 1) < 0.01)
        }
    }

    /// Compares the upper middle of a screen, where neither buttons nor map are, with the picture whose point `center`
    /// should be in its middle.
    /// - Returns: the largest difference of two samples.
    private func difference(_ screen: RGBImage, _ picture: PyramidSamples, center: (x: Double, y: Double), zoom: Double)
        -> Int
    {
        var largest = 0
        let height = screen.height
        for y in height / 8..<height / 2 {
            let atY = Int(center.y + (Double(y) + 0.5 - Double(height) / 2) / zoom)
            for x in screen.width / 8..<screen.width * 7 / 8 {
                let atX = Int(center.x + (Double(x) + 0.5 - Double(screen.width) / 2) / zoom)
                for c in 0..<3 {
                    let shown = Int((screen.pixels[(y * screen.width + x) * 3 + c] * 255).rounded())
                    largest = max(largest, abs(shown - picture[atX, atY, c]))
                }
            }
        }
        return largest
    }
}
