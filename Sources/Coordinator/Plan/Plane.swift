import Engine

/// A named array that the coordinator keeps for a job.
package struct Plane: Sendable, Hashable {
    /// A plane's place in its pipeline's list.
    package typealias ID = Int

    package enum Content: Sendable, Hashable {
        /// The picture to enlarge, of `height` x `width` pixels: there from the start, never written. Windows of it
        /// may be larger than it is (its border pixels go on).
        case picture(height: Int, width: Int)
        /// A text in UTF-8: there from the start, never written, read whole.
        case text(String)
        /// height x width x channels, read by windows or cells and written by cells; in memory or in a file.
        case array(height: Int, width: Int, channels: Int, element: CanvasElement)
        /// So many numbers, read and written whole, always in memory: embeddings (float32), statistics (float64).
        case values(count: Int, element: Slot.Element)
    }

    /// Names the plane's files; no two planes of a pipeline have the same.
    package var name: String
    package var content: Content

    package init(_ name: String, _ content: Content) {
        self.name = name
        self.content = content
    }

    /// Whether it is there from the start and never written.
    package var isGiven: Bool {
        switch content {
        case .picture, .text: true
        case .array, .values: false
        }
    }

    /// The size of an array, or of the picture; nil for what is only read whole.
    package var size: (height: Int, width: Int)? {
        switch content {
        case .picture(let height, let width), .array(let height, let width, _, _): (height, width)
        case .text, .values: nil
        }
    }

    /// Bytes of one buffer of an array; 0 for everything else, which is small or counted elsewhere.
    package var arrayBytes: Int {
        if case .array(let height, let width, let channels, let element) = content {
            height * width * channels * element.size
        } else {
            0
        }
    }
}

/// How many positions of a plane lie on one of a pass's grid, along either axis: `up` / `down`.
package struct Scale: Sendable, Hashable {
    package var up: Int
    package var down: Int

    package static let one = Scale(up: 1)

    package init(up: Int = 1, down: Int = 1) {
        self.up = up
        self.down = down
    }

    /// A length or a coordinate of the grid in the plane; nil where it does not fall on a position of it.
    func plane(_ length: Int) -> Int? { length * up % down == 0 ? length * up / down : nil }

    /// The part of a plane that lies on a part of the grid; nil where its borders do not fall between positions.
    package func plane(_ rect: Rect) -> Rect? {
        guard let y = plane(rect.y), let x = plane(rect.x), let height = plane(rect.height),
            let width = plane(rect.width)
        else { return nil }
        return Rect(y: y, x: x, height: height, width: width)
    }

    /// The smallest part of the grid on which a part of a plane lies.
    package func grid(_ rect: Rect) -> Rect {
        if up == 1, down == 1 { return rect }
        let (y, x) = (rect.y * down / up, rect.x * down / up)
        let (maxY, maxX) = ((rect.maxY * down + up - 1) / up, (rect.maxX * down + up - 1) / up)
        return Rect(y: y, x: x, height: maxY - y, width: maxX - x)
    }
}
