extension Scheduler {
    /// How long a task may take before it is given to another worker as well.
    package struct LeasePolicy: Sendable {
        /// Seconds for a kind of work that nobody has done yet.
        package var unmeasured: Double = 120
        /// Never less than this many seconds, which cover a hiccup of the network or the machine.
        package var least: Double = 3
        /// A second copy goes to an idle worker that is expected to be so many times faster than the rest of the first
        /// will take.
        package var gain: Double = 1.5
        /// Whether a tile that is late may be at two workers.
        package var sendsCopies = true
        /// Whether workers that are not there yet may come: else a job that none of those present can do is over.
        package var othersMayCome = false
        /// Identities that come for certain, and come back when they die. A job is not over while one of them could do
        /// what the others cannot.
        package var identities = 0

        package init() {}
    }
}
