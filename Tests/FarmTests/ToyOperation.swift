import Engine

/// Every pixel of a tile's cell becomes the mean of the three by three around it; beyond the canvas its border goes on.
struct Blur: TaskOperation {
    static let name = "blur"
    static let blank = Blur(canvasHeight: 1, canvasWidth: 1, window: one, cell: one)
    private static let one = Rect(y: 0, x: 0, height: 1, width: 1)

    var canvasHeight, canvasWidth: Int
    /// The cell and, but for the canvas's border, a pixel on each side of it.
    var window, cell: Rect
    /// The sum of the cell's values is answered too.
    var givesSum = false
    /// The sum of the whole canvas's values comes with the window, and the cell is moved so that their mean is a half.
    var takesSum = false

    mutating func code(_ fields: inout FieldCoder) throws(FieldError) {
        try fields.size(height: &canvasHeight, width: &canvasWidth, "canvas")
        let canvas = Rect(y: 0, x: 0, height: canvasHeight, width: canvasWidth)
        try fields.rect(&window, "window", inside: canvas)
        try fields.rect(&cell, "cell", inside: window)
        fields.flag(&givesSum)
        fields.flag(&takesSum)
        let around = Rect(y: cell.y - 1, x: cell.x - 1, height: cell.height + 2, width: cell.width + 2)
        guard let needed = around.intersection(canvas), window.contains(needed) else {
            throw .outOfRange(field: "window", value: "\(window)", allowed: "the cell and a pixel around it")
        }
    }

    var inputs: [Slot] { [Slot(.picture, window, channels: 3)] + (takesSum ? [Self.sum] : []) }
    var outputs: [Slot] { [Slot(.picture, cell, channels: 3)] + (givesSum ? [Self.sum] : []) }
    private static let sum = Slot(.statistics, [1], .float64)

    func perform(on model: any TaskModel, _ tensors: any TaskTensors, workspace: Workspace) throws -> String? {
        let pixels = try tensors.tensor(0).floats
        let sum = takesSum ? try tensors.tensor(1).doubles.first : nil
        let shift = sum.map { 0.5 - Float($0 / Double(canvasHeight * canvasWidth * 3)) } ?? 0
        var values: [Float] = []
        for y in cell.y..<cell.maxY {
            for x in cell.x..<cell.maxX {
                for channel in 0..<3 {
                    var sum: Float = 0
                    for row in [y - 1, y, y + 1].map({ min(max($0, window.y), window.maxY - 1) - window.y }) {
                        for column in [x - 1, x, x + 1].map({ min(max($0, window.x), window.maxX - 1) - window.x }) {
                            sum += pixels[(row * window.width + column) * 3 + channel]
                        }
                    }
                    values.append(sum / 9 + shift)
                }
            }
        }
        try tensors.write(0) { write in write(values.span, 0) }
        if givesSum { tensors.write(1, doubles: [values.reduce(0) { $0 + Double($1) }]) }
        return nil
    }
}
