use super::*;
use proptest::prelude::*;

/// The tile of these rows of `A` and of `Bᵀ`, all of the same length.
fn tile_of(kernel: Kernel, a: &[Vec<u8>], b: &[Vec<u8>]) -> Tile {
    let k = a[0].len();
    let mut strip = Strip::new(kernel, k).unwrap_or_else(|_| panic!("memory for a strip"));
    let mut panel = vec![0; panel_len(k)];
    a.iter().enumerate().for_each(|(r, row)| strip.lay(r, row));
    b.iter().enumerate().for_each(|(s, row)| lay_column(s, row, &mut panel));
    // What lay there before does not matter.
    let mut tile = Tile([-1; 1024]);
    strip.multiply(&panel, &mut tile);
    tile
}

/// The definition: every entry is the dot product of its rows.
fn expected(a: &[Vec<u8>], b: &[Vec<u8>]) -> Tile {
    let mut tile = Tile::zero();
    for (r, row) in a.iter().enumerate() {
        for (s, column) in b.iter().enumerate() {
            tile.0[r * TILE + s] = dot_scalar(row, column);
        }
    }
    tile
}

/// 32 rows of keystream.
fn rows(key: u8, matrix: Matrix, k: usize) -> Vec<Vec<u8>> {
    let row = |index| {
        let mut row = vec![0; k];
        keystream::fill(&[key; 32], index, matrix, &mut row);
        row
    };
    (0..TILE as u32).map(row).collect()
}

const EVERY_K: [usize; 11] = [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

#[test]
fn a_tile_is_the_dot_products_of_its_rows() {
    for k in [64, 256, 1024] {
        let (a, b) = (rows(5, Matrix::A, k), rows(5, Matrix::B, k));
        let expected = expected(&a, &b);
        for kernel in Kernel::all() {
            assert_eq!(tile_of(kernel, &a, &b), expected, "{} k={k}", kernel.name());
        }
    }
}

#[test]
fn strips_and_panels_are_filled_with_the_keystreams_rows() {
    let k = 1024;
    let mut row = vec![0; k];
    for kernel in Kernel::all() {
        let mut strip = Strip::new(kernel, k).unwrap_or_else(|_| panic!("memory for a strip"));
        let mut panel = vec![0; panel_len(k)];
        strip.fill(&[5; 32], 1, &mut row);
        fill_panel(&[5; 32], 2, k, &mut row, &mut panel);
        let mut tile = Tile::zero();
        strip.multiply(&panel, &mut tile);
        for (r, s) in [(0, 0), (0, 31), (31, 0), (13, 17), (31, 31)] {
            let (mut a, mut b) = (vec![0; k], vec![0; k]);
            keystream::fill(&[5; 32], 32 + r as u32, Matrix::A, &mut a);
            keystream::fill(&[5; 32], 64 + s as u32, Matrix::B, &mut b);
            assert_eq!(tile.0[r * TILE + s], dot_scalar(&a, &b), "{} ({r}, {s})", kernel.name());
        }
    }
}

/// What could saturate or overflow: every pair of the lowest, the highest and the middle byte, for every length.
#[test]
fn the_extremes_do_not_overflow_at_any_length() {
    for kernel in Kernel::all() {
        for k in EVERY_K {
            // The portable twin is slow unoptimised, and lengths are alike to it.
            if kernel == Kernel::scalar() && ![64, 1024].contains(&k) {
                continue;
            }
            let byte = |place: usize| [0x80, 0x7f, 0x00, 0xff][place % 4];
            let row = |r: usize| vec![byte(r); k];
            let (a, b): (Vec<_>, Vec<_>) = (0..TILE).map(|r| (row(r), row(r / 4))).unzip();
            let tile = tile_of(kernel, &a, &b);
            for (place, entry) in tile.0.iter().enumerate() {
                let (x, y) = (byte(place / TILE) as i8, byte(place % TILE / 4) as i8);
                let expected = i32::from(x) * i32::from(y) * k as i32;
                assert_eq!(*entry, expected, "{} k={k} {x} by {y}", kernel.name());
            }
        }
        let lowest = vec![0x80; 65_536];
        assert_eq!(kernel.dot(&lowest, &lowest), 1 << 30);
    }
}

#[test]
fn fast_kernels_agree_on_the_longest_rows() {
    let (a, b) = (rows(7, Matrix::A, 65_536), rows(7, Matrix::B, 65_536));
    for kernel in Kernel::all().split_off(1) {
        let tile = tile_of(kernel, &a, &b);
        for (r, s) in [(0, 0), (7, 8), (8, 7), (15, 16), (31, 31)] {
            assert_eq!(tile.0[r * TILE + s], dot_scalar(&a[r], &b[s]), "{} ({r}, {s})", kernel.name());
        }
    }
}

fn bytes(k: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let byte = prop_oneof![3 => any::<u8>(), 1 => Just(0x80), 1 => Just(0x7f)];
    // A few rows, again and again: what differs between places is tested with keystream.
    proptest::collection::vec(proptest::collection::vec(byte, k), 3)
        .prop_map(|rows| rows.iter().cycle().take(TILE).cloned().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn tiles_are_bit_identical_in_every_kernel(
        (a, b) in (6u32..11).prop_flat_map(|k| (bytes(1 << k), bytes(1 << k)))
    ) {
        let expected = tile_of(Kernel::scalar(), &a, &b);
        prop_assert_eq!(expected.0[32], dot_scalar(&a[1], &b[0]));
        for kernel in Kernel::all() {
            prop_assert_eq!(&tile_of(kernel, &a, &b), &expected);
        }
    }

    #[test]
    fn dot_is_bit_identical_in_every_kernel(
        (a, b) in (0usize..400).prop_flat_map(|n| (
            proptest::collection::vec(any::<u8>(), n),
            proptest::collection::vec(any::<u8>(), n),
        ))
    ) {
        for kernel in Kernel::all() {
            prop_assert_eq!(kernel.dot(&a, &b), dot_scalar(&a, &b));
        }
    }
}

#[test]
fn rows_of_different_lengths_count_up_to_the_shorter() {
    for kernel in Kernel::all() {
        assert_eq!(kernel.dot(&[1; 100], &[2; 37]), 74);
        assert_eq!(kernel.dot(&[], &[2; 37]), 0);
    }
}
